"""The fixture with a second database: the shop, and its reporting."""

import os

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_BINDS"] = {"reporting": os.environ["REPORTING_DATABASE_URL"]}
db = SQLAlchemy(app)
Migrate(app, db)

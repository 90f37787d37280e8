"""The scripts as they are read: each compiled from bytes whose digest is known."""

import contextlib
import hashlib
import os
import sys
from importlib.machinery import SourceFileLoader


def watched(generate):
    """Wraps Alembic's generator of scripts, which loads a module for each."""

    def load():
        with compiled_from_source():
            yield from generate()

    return load


# The scripts are loaded anew for the dry run and for the run; the code of one by its path and bytes.
compiled = {}


@contextlib.contextmanager
def compiled_from_source():
    """Notes the digest of what each module is made from; what lies in __pycache__ may be something else than the script."""
    get_data, to_code = SourceFileLoader.get_data, SourceFileLoader.source_to_code
    prefix, written = sys.pycache_prefix, sys.dont_write_bytecode

    def noted(self, path):
        data = get_data(self, path)
        if path == self.path:
            self.digest = sha256(data)
        return data

    def once(self, data, path, **options):
        key = (path, bytes(data))
        if key not in compiled:
            compiled[key] = to_code(self, data, path, **options)
        return compiled[key]

    SourceFileLoader.get_data, SourceFileLoader.source_to_code = noted, once
    sys.pycache_prefix, sys.dont_write_bytecode = os.devnull, True
    try:
        yield
    finally:
        SourceFileLoader.get_data, SourceFileLoader.source_to_code = get_data, to_code
        sys.pycache_prefix, sys.dont_write_bytecode = prefix, written


def digest_of(revision):
    """The digest of the bytes that a loaded script was compiled from."""
    digest = getattr(revision.module.__spec__.loader, "digest", None)
    if digest is None:
        # Alembic's `sourceless`: there is nothing but bytecode.
        with open(revision.path, "rb") as file:
            digest = sha256(file.read())
    return digest


def sha256(source):
    """Line ends may differ from checkout to checkout."""
    return hashlib.sha256(source.replace(b"\r\n", b"\n").replace(b"\r", b"\n")).hexdigest()

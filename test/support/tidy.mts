import { afterAll } from 'vitest'
import { dropDatabases } from './action.mts'

afterAll(dropDatabases)

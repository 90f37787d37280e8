import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import * as wire from '../../src/postgres/gate/wire'
import { type OpenGate, openGate, q, Raw, startup } from './gate.mts'

/** Whatever a client sends, it neither ends our transaction nor reaches past the gate. The database is the witness. */

const prepare = `CREATE TABLE t (id int); CREATE TABLE late (id int);
  DO $$ BEGIN CREATE ROLE somebody; EXCEPTION WHEN duplicate_object THEN END $$;
  GRANT ALL ON t, late TO somebody;
  CREATE PROCEDURE ends() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
  CREATE PROCEDURE undoes() LANGUAGE plpgsql AS 'BEGIN ROLLBACK; END';
  CREATE PROCEDURE chains() LANGUAGE plpgsql AS 'BEGIN COMMIT AND CHAIN; END';
  CREATE PROCEDURE calls() LANGUAGE plpgsql AS 'BEGIN CALL ends(); END';
  CREATE FUNCTION ending() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN COMMIT; RETURN NULL; END';
  CREATE CONSTRAINT TRIGGER ending AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ending()`

/** What other connections see of it. */
const visible = `SELECT (SELECT count(*) FROM t)::int AS rows,
  (SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace) AS relations,
  (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())::int AS prepared,
  (SELECT count(*) FROM pg_largeobject_metadata)::int AS objects,
  (SELECT count(*) FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
   WHERE coalesce(d.datname, current_database()) = current_database())::int AS defaults`

/** What a session is: every setting, who it is, and all that outlives a transaction. */
const session = `SELECT (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name !~ '^transaction_(is|re|de)') AS settings,
  session_user AS login, current_user AS role, current_setting('app.x', true) AS custom,
  ARRAY(SELECT name FROM pg_prepared_statements) AS statements, ARRAY(SELECT pg_listening_channels()) AS channels,
  ARRAY(SELECT name FROM pg_cursors WHERE name NOT IN ('', 'atomic_upgrade')) AS cursors,
  ARRAY(SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
  ARRAY(SELECT relname FROM pg_class WHERE pg_is_other_temp_schema(relnamespace) OR relnamespace = pg_my_temp_schema()) AS tables`

const gone = (value: unknown) => ({ ...(value as object), custom: null })

const bothEnds = ['ROLLBACK', 'COMMIT'] as const

/** Lets a client do what it wants, and asks the database whether it was of any use. */
async function withstand(
  attack: (open: OpenGate) => Promise<void>,
  before = '',
  ends = bothEnds.slice(),
): Promise<void> {
  for (const end of ends) {
    const open = await openGate(prepare, { before })
    const other = new pg.Client({ connectionString: open.url })
    await other.connect()
    onTestFinished(() => other.end())
    const atFirst = (await other.query(visible)).rows
    const client = await open.connect()
    await client.query('INSERT INTO t VALUES (1); BEGIN; INSERT INTO t VALUES (2); COMMIT')
    await client.end()
    await attack(open)
    expect((await other.query(visible)).rows).toEqual(atFirst)
    await open.gate.close()
    expect(open.gate.lost).toBe(undefined)
    // What came through the gate before is there, in the one transaction, and nowhere else.
    expect(await open.readInside('SELECT count(*)::int AS n FROM t WHERE id IN (1, 2)')).toBe(2)
    expect((await other.query(visible)).rows).toEqual(atFirst)
    // A connection that was only begun, set and rolled back is as it was; so is ours, before and after its end.
    const twin = new pg.Client({ connectionString: open.url })
    await twin.connect()
    onTestFinished(() => twin.end())
    // The settings of PL/pgSQL are there only when it is loaded.
    await twin.query(`LOAD 'plpgsql'; ${before}`)
    const outside = (await twin.query(session)).rows.map(gone)
    await twin.query(`BEGIN; SET LOCAL lock_timeout = '7s'; SET LOCAL statement_timeout = '50s'`)
    expect((await open.upstream.query(session)).rows.map(gone)).toEqual((await twin.query(session)).rows.map(gone))
    if (end === 'ROLLBACK') {
      await open.finish(end)
      expect((await other.query(visible)).rows).toEqual(atFirst)
    } else {
      await open.upstream.query('DELETE FROM late')
      await open.finish(end)
      expect(await open.read('SELECT count(*)::int AS n FROM t WHERE id IN (1, 2)')).toBe(2)
    }
    expect((await open.upstream.query(session)).rows.map(gone)).toEqual(outside)
  }
}

const run = (name: string) => [wire.bind('', name), wire.execute('')]

/** Says it in every form, outside of a transaction and inside of one. */
async function sayEverywhere(open: OpenGate, sql: string | Buffer): Promise<void> {
  for (const strings of ['on', 'off']) {
    const raw = await open.raw()
    await raw.query(`SET standard_conforming_strings = ${strings}`)
    for (const begin of ['', 'BEGIN', 'BEGIN; SAVEPOINT s']) {
      const start = async () => void (await raw.query(`ROLLBACK; ${begin}`))
      await start()
      await raw.query(sql)
      await start()
      await raw.ask(wire.parse('', sql), ...run(''), wire.sync)
      await start()
      await raw.ask(wire.parse('later', sql), wire.sync)
      await raw.ask(...run('later'), ...run('later'), wire.sync)
      await raw.query('EXECUTE later')
      await raw.ask(wire.closeStatement('later'), wire.sync)
      await start()
      await raw.ask(wire.parse('', 'SELECT 1'), ...run(''), wire.parse('', sql), ...run(''), wire.flush, wire.sync)
    }
    await raw.query('ROLLBACK')
    await raw.query('RESET standard_conforming_strings')
  }
}

describe('SQL', () => {
  const escapes: Record<string, string> = {
    'a string that ends elsewhere': `select '\\''; commit; --'`,
    'a string that ends elsewhere, with its setting in the same message': `SET standard_conforming_strings = off; select '\\''; commit; --'`,
    'a string in E form': `select E'\\''; commit; --'`,
    'a string with a quote escaped in each way': `SET backslash_quote = on; select 'a\\''; commit; select '''\\'; commit; --'`,
    'a dollar-quoted string': `select $a$ ' $b$ ; $a$; commit; select $b$ ' $b$`,
    'an identifier with semicolons': `select 1 as "a; commit; --"; commit`,
    'a gid that ends elsewhere': `PREPARE TRANSACTION 'a\\'b'`,
    'a gid that swallows a second statement': `PREPARE TRANSACTION 'a\\'; select 1 --'`,
    'a gid that swallows a commit': `PREPARE TRANSACTION 'a\\'; commit; --'`,
    'two-phase commit': `BEGIN; INSERT INTO t VALUES (3); PREPARE TRANSACTION 'g'; COMMIT PREPARED 'g'`,
    'two-phase commit of what was never prepared': `COMMIT PREPARED 'nothing'; ROLLBACK PREPARED 'nothing'`,
    'comments first': '/* /* */ ; */ -- x\n COMMIT',
    'comments that look as if they ended': '/*/*/ */ commit; /**/ */ COMMIT; /***/COMMIT',
    'a comment that ends with a carriage return': '-- x\rCOMMIT',
    'semicolons first': ';;; COMMIT ; ;',
    'white space of every kind first': '\v\f\t\r\n COMMIT',
    'white space that is none to PostgreSQL first': '\u00a0COMMIT; \ufeffCOMMIT; \u2028COMMIT',
    'unreadable, with semicolons and a carriage return first': `;--x\r/**/;COMMIT AND NOTHING`,
    'unreadable PREPARE': `;PREPARE/**/TRANSACTION U&'x' UESCAPE 'y' 1`,
    'each word that ends a transaction':
      'COMMIT; END; END WORK; COMMIT TRANSACTION; ROLLBACK; ABORT; COMMIT AND NO CHAIN; END AND CHAIN; ROLLBACK AND CHAIN',
    'several statements': 'SELECT 1; COMMIT; COMMIT; ROLLBACK; BEGIN; ROLLBACK',
    'a COMMIT behind an error': 'SELECT 1/0; COMMIT',
    'PREPARE of a COMMIT': 'PREPARE x AS COMMIT; EXECUTE x; DEALLOCATE x',
    'the gate’s own prepared statement': 'SAVEPOINT a; EXECUTE atomic_upgrade; ROLLBACK; EXECUTE atomic_upgrade',
    'a DO block': `DO $$ BEGIN COMMIT; END $$`,
    'a DO block that catches the refusal':
      'DO $$ BEGIN BEGIN COMMIT; EXCEPTION WHEN OTHERS THEN ROLLBACK; END; EXCEPTION WHEN OTHERS THEN COMMIT; END $$',
    'a procedure': 'CALL ends()',
    'a procedure that rolls back': 'CALL undoes()',
    'a procedure that chains': 'CALL chains()',
    'a procedure in a procedure, and in a DO block': 'CALL calls(); DO $$ BEGIN CALL calls(); END $$',
    'dynamic SQL': `DO $$ BEGIN EXECUTE 'COMMIT'; END $$`,
    'dynamic PREPARE TRANSACTION': `DO $$ BEGIN EXECUTE 'PREPARE TRANSACTION ''g'''; END $$`,
    'a procedure in SQL': 'CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (3); COMMIT; END; CALL p()',
    'a trigger':
      'CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION ending(); INSERT INTO t VALUES (3); DROP TRIGGER x ON t',
    'a deferred trigger': 'INSERT INTO late VALUES (1); COMMIT',
    'a savepoint that is not the client’s': 'ROLLBACK TO SAVEPOINT atomic_upgrade; RELEASE atomic_upgrade_1',
    'what is not possible in a transaction':
      'VACUUM; CREATE DATABASE x; ALTER SYSTEM SET work_mem = 1; REINDEX TABLE CONCURRENTLY t; DISCARD ALL',
    'statements that would commit of themselves, alone': 'CREATE INDEX CONCURRENTLY i ON t (id)',
    'the default of transactions': 'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY',
    'the transaction’s own mode': 'SET TRANSACTION READ ONLY; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE',
    'another user': 'SET SESSION AUTHORIZATION somebody; INSERT INTO t VALUES (3); COMMIT',
    'another role': 'SET ROLE somebody; INSERT INTO t VALUES (3); COMMIT; SET LOCAL ROLE somebody',
    everything: 'CLOSE ALL; DEALLOCATE ALL; DISCARD TEMP; DISCARD PLANS; RESET ALL; ABORT; END',
    'everything, in a DO block': `DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; EXECUTE 'CLOSE ALL'; EXECUTE 'RESET ALL'; EXECUTE 'DISCARD SEQUENCES'; END $$`,
    'its own cancellation': 'SELECT pg_cancel_backend(pg_backend_pid())',
    'locks taken': 'SELECT pg_advisory_lock_shared(7)',
    'locks given back': 'SELECT pg_advisory_unlock_all()',
    'things that outlive a transaction':
      'CREATE TEMP TABLE x AS SELECT 1; LISTEN x; PREPARE y AS SELECT 1; DECLARE z CURSOR WITH HOLD FOR SELECT 1; SELECT lo_create(0)',
    'defaults of the role and of the database': `ALTER ROLE somebody SET work_mem = '3MB'; DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''3MB''', current_database()); END $$; ROLLBACK`,
  }
  // The end is ours, in the transaction of the start, whatever was said: these take the one that keeps what they did.
  for (const [name, sql] of Object.entries(escapes)) {
    test(name, () => withstand(open => sayEverywhere(open, sql), '', ['COMMIT']))
  }

  const encodings: Record<string, number[]> = {
    SJIS: [0x95, 0x5c],
    BIG5: [0xa5, 0x5c],
    GBK: [0x81, 0x5c],
    GB18030: [0x81, 0x5c],
    UHC: [0x81, 0x41],
    JOHAB: [0xd9, 0x3b],
  }
  for (const [encoding, bytes] of Object.entries(encodings)) {
    test(`a letter of ${encoding} whose second byte is a sign of SQL`, () =>
      withstand(async open => {
        const letter = Buffer.from(bytes)
        const sql = [`select '`, letter, `'; commit; --'; commit; /*`, letter, '*/ commit; ', letter, '; commit']
        const raw = await open.raw()
        await raw.query(`SET client_encoding = ${encoding}`)
        await raw.query(Buffer.concat(sql.map(part => Buffer.from(part as string))))
        await sayEverywhere(open, Buffer.concat(sql.map(part => Buffer.from(part as string))))
      }))
  }

  test('a null byte with a COMMIT behind it', () =>
    withstand(async open => {
      const raw = await open.raw()
      await raw.ask(wire.frame('Q', Buffer.from('SELECT 1\0COMMIT\0')))
      await raw.query('BEGIN; INSERT INTO t VALUES (3)')
      expect(await raw.ask(wire.frame('Q', Buffer.from('SELECT 1\0COMMIT\0')))).toEqual(['E 08P01', 'Z E'])
      expect(await raw.query('ROLLBACK')).toEqual(['C ROLLBACK', 'Z I'])
      await raw.ask(wire.frame('P', Buffer.from('\0SELECT 1\0COMMIT\0\0')), ...run(''), wire.sync)
    }))
})

describe('settings do not outlive the step', () => {
  const settings: Record<string, string> = {
    SET: `SET lock_timeout = '1s'; SET search_path = nowhere; SET app.x = 'secret'; SET TIME ZONE 'Asia/Tokyo'`,
    'SET in a transaction': `BEGIN; SET lock_timeout = '1s'; SET search_path = nowhere; COMMIT`,
    'SET LOCAL': `BEGIN; SET LOCAL lock_timeout = '1s'; SET LOCAL search_path = nowhere; SET LOCAL app.x = 'secret'; COMMIT`,
    'SET over SET LOCAL, and in a transaction that stays open': `BEGIN; SET LOCAL work_mem = '1MB'; SET work_mem = '2MB'`,
    set_config: `SELECT set_config('lock_timeout', '1s', false), set_config('search' || '_path', 'nowhere', false)`,
    'a DO block': `DO $$ BEGIN SET lock_timeout = 0; SET search_path = nowhere; SET ROLE somebody; END $$`,
    'a statement_timeout that nearly nothing meets': `SET statement_timeout = '2ms'`,
    'what is the connection’s': `SET client_encoding = 'LATIN1'; SET application_name = 'not us'; SET DateStyle = 'SQL'; SET synchronous_commit = off`,
    'who it is':
      'SET ROLE somebody; SET lock_timeout = 0; SET SESSION AUTHORIZATION somebody; SET search_path = nowhere',
    'RESET ALL': `SET search_path = nowhere; RESET ALL`,
  }
  for (const [name, sql] of Object.entries(settings)) {
    test(name, () =>
      withstand(async open => {
        const [raw, other] = [await open.raw({ options: '-c lock_timeout=3s' }), await open.raw()]
        await raw.query(sql)
        await other.query('SELECT 1')
        await raw.query('SELECT 1')
      }),
    )
  }

  test('nor do they cover what a pooler had set before us', async () => {
    const before = `SET search_path = pooled, public; SET work_mem = '3MB'; SET ROLE somebody; SET DateStyle = 'German'`
    await withstand(async open => {
      for (const sql of ['SET search_path = nowhere; RESET ROLE', `SET work_mem = '9MB'; SET ROLE NONE`, 'RESET ALL']) {
        const client = await open.connect()
        const { rows } = await client.query(
          `SELECT current_user AS role, current_setting('search_path') AS path, current_setting('work_mem') AS memory`,
        )
        expect(rows).toEqual([{ role: 'somebody', path: 'pooled, public', memory: '3MB' }])
        await client.query(sql)
        await client.end()
      }
    }, before)
  })
})

describe('what a client may say besides SQL', () => {
  const conversations: Record<string, (raw: Raw) => Promise<unknown>> = {
    'COMMIT, prepared once and executed often, also by SQL': async raw => {
      await raw.ask(wire.parse('c', 'COMMIT'), wire.parse('b', 'BEGIN'), wire.parse('r', 'ROLLBACK'), wire.sync)
      await raw.ask(...run('b'), ...run('c'), ...run('c'), ...run('r'), ...run('r'), ...run('b'), wire.sync)
      await raw.query('EXECUTE c; EXECUTE c_1; EXECUTE c_2')
      await raw.query('EXECUTE c_1')
      await raw.ask(...run('c_1'), wire.sync)
      await raw.query('ROLLBACK')
    },
    'a COMMIT bound to a portal and executed in a later unit': async raw => {
      await raw.ask(wire.parse('c', 'COMMIT'), wire.bind('p', 'c'), wire.sync)
      await raw.ask(wire.execute('p'), wire.execute('p'), wire.sync)
      await raw.ask(wire.parse('', 'COMMIT'), wire.bind('', ''), wire.sync)
      await raw.ask(wire.execute(''), wire.sync)
    },
    'a name that first means SELECT and then COMMIT': async raw => {
      await raw.ask(wire.parse('s', 'SELECT 1'), wire.parse('s', 'COMMIT'), wire.sync)
      await raw.ask(...run('s'), wire.sync)
      await raw.ask(wire.closeStatement('s'), wire.parse('s', 'COMMIT'), ...run('s'), wire.sync)
      await raw.ask(wire.parse('s', 'SELECT 1/0'), ...run('s'), wire.closeStatement('s'), wire.sync)
    },
    'two statements in one Parse': async raw => {
      for (const sql of ['SELECT 1; COMMIT', 'COMMIT; SELECT 1', 'COMMIT; COMMIT', ';;COMMIT;;', '; ; '])
        await raw.ask(wire.parse('', sql), ...run(''), wire.sync)
    },
    'the gate’s own statement and portal': async raw => {
      for (const begin of ['', 'BEGIN', 'BEGIN; SAVEPOINT a; SAVEPOINT b']) {
        await raw.query(`ROLLBACK; ${begin}`)
        await raw.ask(wire.bind('', 'atomic_upgrade'), wire.execute(''), wire.execute('atomic_upgrade'), wire.sync)
        await raw.ask(wire.execute('atomic_upgrade'), wire.closePortal('atomic_upgrade'), wire.sync)
        await raw.query(`ROLLBACK; ${begin}`)
        await raw.query('PREPARE atomic_upgrade AS SELECT 1; DECLARE atomic_upgrade CURSOR FOR SELECT 2')
        await raw.query('DECLARE atomic_upgrade CURSOR WITH HOLD FOR SELECT 2')
        await raw.query('FETCH ALL FROM atomic_upgrade')
      }
      await raw.query('ROLLBACK')
    },
    'a Flush, a Sync and a COPY with something in them': async raw => {
      const more = Buffer.from('more')
      await raw.ask(wire.parse('', 'SELECT 1'), wire.frame('H', more), ...run(''), wire.frame('S', more))
      await raw.ask(wire.frame('H', more), wire.sync)
      raw.send(q('COPY t FROM STDIN'))
      await raw.until('G')
      await raw.ask(wire.frame('d', Buffer.from('9\n')), wire.frame('f', wire.cstring('x'), more))
    },
    'a FunctionCall, whole and broken': async raw => {
      const pgBackendPid = wire.frame('F', wire.int32(2026), wire.int16(0), wire.int16(0), wire.int16(0))
      await raw.ask(pgBackendPid)
      await raw.ask(wire.frame('F', wire.int32(2026)))
      await raw.ask(wire.frame('F'))
    },
    'names longer than the server takes': raw => raw.ask(wire.closeStatement('x'.repeat(20_000)), wire.sync),
    'a CopyFail longer than the server takes': async raw => {
      raw.send(q('COPY t FROM STDIN'))
      await raw.until('G')
      await raw.ask(wire.frame('f', wire.cstring('x'.repeat(20_000))))
    },
    'a message that says it has two gigabytes': raw => raw.ask(Buffer.from('Q\x7f\xff\xff\xff', 'latin1')),
    'a message with a negative length': raw => raw.ask(Buffer.from('Q\xff\xff\xff\xff', 'latin1')),
    'a password, a startup packet and a CancelRequest in the middle': async raw => {
      await raw.ask(wire.frame('p', wire.cstring('again')), wire.sync)
    },
    'half a message': async raw => {
      await raw.query('BEGIN; INSERT INTO t VALUES (3)')
      raw.send(q('COMMIT').subarray(0, 9))
      raw.socket.destroy()
    },
    'a COMMIT and nothing more': async raw => {
      raw.send(q('BEGIN; INSERT INTO t VALUES (3)'), q('ROLLBACK; INSERT INTO late VALUES (1); COMMIT'))
      raw.socket.destroy()
    },
  }
  for (const [name, conversation] of Object.entries(conversations)) {
    test(name, () =>
      withstand(async open => {
        // With a twin who has the same names, and one whose turn comes behind.
        const [raw, other] = [await open.raw(), await open.raw()]
        await other.ask(wire.parse('s', 'SELECT 1'), wire.parse('c', 'SELECT 2'), wire.sync)
        await conversation(raw)
        expect((await other.ask(...run('c'), wire.sync)).slice(-3)).toEqual(['D 2', 'C SELECT 1', 'Z I'])
      }),
    )
  }
})

describe('others on this machine', () => {
  const knock = (open: OpenGate, ...bytes: Buffer[]) => {
    const raw = new Raw(open.gate.address.port)
    raw.listen()
    raw.send(...bytes)
    return raw
  }
  const hello = startup({ user: 'postgres' })

  test('guess the password', () =>
    withstand(async open => {
      const { password } = open.gate.address
      const guesses = [
        '',
        ' ',
        password.slice(1),
        `${password} `,
        password.toLowerCase(),
        `${password}\0`,
        'x'.repeat(9_000),
      ]
      const answers = await Promise.all(
        [...guesses, ...Array.from({ length: 200 }, (_, i) => `guess ${i}`)].map(guess =>
          knock(
            open,
            hello,
            wire.frame('p', wire.cstring(guess.replace('\0', ''))),
            q('INSERT INTO t VALUES (9); COMMIT'),
          ).until('Z'),
        ),
      )
      // One of them is right, with something behind it that is cut off.
      const refused = answers.filter(words => words.includes('E 28P01') && words.at(-1) === 'closed')
      expect(refused.length).toBe(answers.length - 1)
    }))

  test('send no password at all, or none of a startup’s packets', () =>
    withstand(async open => {
      const strange: Buffer[][] = [
        [hello, q('INSERT INTO t VALUES (9)')],
        [q('INSERT INTO t VALUES (9)')],
        [wire.int32(0)],
        [wire.int32(-1)],
        [wire.int32(7)],
        [wire.int32(10_001)],
        [wire.int32(0x7fffffff), Buffer.alloc(100_000)],
        [Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')],
        [hello, Buffer.from('p\x7f\xff\xff\xff', 'latin1')],
        [hello, Buffer.from('Q\x00\x0f\xff\xff', 'latin1'), Buffer.alloc(100_000)],
        [wire.int32(8), wire.int32(wire.startupCode.ssl), wire.int32(8), wire.int32(wire.startupCode.ssl)],
        [wire.int32(8), wire.int32(wire.startupCode.cancel)],
        [startup({ user: 'postgres', replication: 'true' })],
        [startup({ user: 'x'.repeat(20_000) })],
        [startup({ user: 'postgres' }, 2 << 16)],
      ]
      for (const bytes of strange) {
        const raw = new Raw(open.gate.address.port)
        const heard: Buffer[] = []
        raw.socket.on('data', chunk => heard.push(chunk))
        const closed = new Promise(resolve => raw.socket.once('close', resolve))
        raw.send(...bytes)
        await closed
        expect(Buffer.concat(heard).includes(wire.authenticationOk)).toBe(false)
      }
    }))

  test('connect and say nothing', () =>
    withstand(async open => {
      const early = await open.raw()
      let closed = 0
      const silent = Array.from({ length: 300 }, (_, i) => {
        const raw = knock(open, ...(i % 2 ? [hello] : []))
        raw.socket.on('close', () => closed++)
        return raw
      })
      await Promise.all(silent.slice(0, 250).map(raw => raw.until('Z')))
      expect(closed).toBeGreaterThanOrEqual(250)
      expect(await early.query('INSERT INTO t VALUES (3)')).toEqual(['C INSERT 0 1', 'Z I'])
      expect(await (await open.raw()).query('SELECT 1')).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
    }))

  test('cancel what they have no key for', () =>
    withstand(async open => {
      const raw = await open.raw()
      raw.send(q('SELECT pg_sleep(1000)'))
      const pid = await open.sleeping()
      for (const secret of ['', '\0', '\0\0\0\0', '\0\0\0\0\0\0\0\0']) await open.cancel(raw, Buffer.from(secret))
      for (let i = 0; i < 50; i++) await open.cancel(raw, wire.int32(i))
      expect(await open.sleeping()).toBe(pid)
      await open.cancel(raw)
      expect(await raw.until('Z')).toEqual(['T', 'E 57014', 'Z I'])
      // Behind a statement there is nothing to cancel.
      for (let i = 0; i < 20; i++) await open.cancel(raw)
      expect(await raw.query('BEGIN; INSERT INTO t VALUES (3); ROLLBACK')).toEqual([
        'C BEGIN',
        'C INSERT 0 1',
        'C ROLLBACK',
        'Z I',
      ])
    }))
})

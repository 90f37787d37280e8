import type { Execution } from './execution'
import type { Leaving } from './leavings'
import { aborted, type NestedTransaction } from './nested'
import type { PreparedStatements } from './prepared'
import { join } from './request'
import { type GateEffect, isControl, type Understood, understand, unknown } from './understand'
import type { Unit } from './unit'
import * as wire from './wire'

/** What PostgreSQL still takes in a failed transaction. */
const wayOut = new Set<GateEffect['kind']>(['commit', 'rollback', 'rollback-to', 'prepare'])

/** Parse, Bind, Describe, Execute and Close; those of transaction control are answered here. */
export class ExtendedProtocol {
  /** The Parse message of the client's unnamed statement. */
  #unnamed: Buffer | undefined

  constructor(
    private readonly unit: Unit,
    private readonly execution: Execution,
    private readonly transaction: NestedTransaction,
    private readonly statements: PreparedStatements,
    /** Told of each portal that the client closes, by its name upstream. */
    private readonly closed: (portal: string) => void,
  ) {}

  receive(message: wire.Message): void {
    switch (message.type) {
      case 'P':
        return this.#parse(message)
      case 'B':
        return this.#bind(message)
      case 'D':
        return this.#describe(message)
      case 'E':
        return this.#execute(message)
      case 'C':
        return this.#close(message)
      default:
        throw new Error(`a message of type ${message.type}`)
    }
  }

  #parse({ body }: wire.Message): void {
    const { unit, statements } = this
    const name = wire.readCString(body)
    const sql = wire.readCString(body, name.next)
    const pieces = understand(sql.bytes)
    // Several in one Parse are for the server to refuse, unless it might read them as one.
    const [piece, ...more] = pieces
    const isOne = piece && more.length === 0
    const understood: Understood = isOne ? piece : { ...unknown, bytes: sql.bytes, text: sql.text }
    const finish = unit.record(understood.text)
    if (piece && !isOne && isControl(piece))
      return unit.refuse('42601', 'cannot insert multiple commands into a prepared statement', finish)
    if (understood.effect.kind === 'refuse') return unit.refuse('42601', understood.effect.why, finish)
    const taken = name.text ? statements.get(name.text) : undefined
    if (taken && (isControl(taken) || isControl(understood)))
      return unit.refuse('42P05', `prepared statement "${name.text}" already exists`, finish)
    if (isControl(understood)) {
      if (this.transaction.views.ahead.status === 'E' && !wayOut.has(understood.effect.kind))
        return unit.refuse('25P02', aborted, finish)
      return unit.answer(wire.parseComplete, statements.add(name.text, understood))
    }
    this.transaction.enter(finish)
    // A name that is taken is for the server to refuse.
    const done = taken ? undefined : statements.add(name.text, understood)
    const parse = wire.parse(statements.upstreamName(name.text), understood.bytes, body.subarray(sql.next))
    if (!name.text) {
      this.#unnamed = Buffer.from(parse)
      unit.takeUnnamed(true)
    }
    unit.send({
      bytes: parse,
      expected: [{ ends: '1', deliver: unit.deliverTo(finish), ...(done && { done }) }],
    })
  }

  #bind({ body }: wire.Message): void {
    const { unit, statements } = this
    const portal = wire.readCString(body)
    const name = wire.readCString(body, portal.next)
    const rest = body.subarray(name.next)
    const statement = statements.get(name.text)
    const parameters = () => parametersOf(rest)
    if (statement && isControl(statement)) {
      statements.portals.set(portal.text, { statement, parameters })
      return unit.answer(wire.bindComplete)
    }
    const finish = unit.record(statement?.text ?? '', parameters)
    this.transaction.enter(finish)
    statements.portals.set(portal.text, { statement, parameters })
    const upstreamPortal = statements.upstreamPortal(portal.text)
    if (portal.text) {
      const cursor: Leaving = { kind: 'cursor', name: upstreamPortal, hold: false }
      this.transaction.views.change(({ fleeting }) => void fleeting.push(cursor))
    }
    this.#restoreUnnamed(name.text)
    unit.send({
      bytes: wire.frame('B', wire.cstring(upstreamPortal), wire.cstring(statements.upstreamName(name.text)), rest),
      expected: [{ ends: '2', deliver: unit.deliverTo(finish) }],
    })
  }

  #describe({ body }: wire.Message): void {
    const { unit, statements } = this
    const ofStatement = body[0] === 0x53
    const { text: name } = wire.readCString(body, 1)
    const statement = ofStatement ? statements.get(name) : statements.portals.get(name)?.statement
    if (statement && isControl(statement))
      return unit.answer(ofStatement ? Buffer.concat([wire.noParameters, wire.noData]) : wire.noData)
    this.transaction.open()
    if (ofStatement) this.#restoreUnnamed(name)
    unit.send({
      bytes: ofStatement
        ? wire.describeStatement(statements.upstreamName(name))
        : wire.describePortal(statements.upstreamPortal(name)),
      expected: [{ ends: 'Tn', deliver: unit.deliver }],
    })
  }

  /** Another client has had the turn since the Parse, and the unnamed statement may be its: ours is parsed once more. */
  #restoreUnnamed(name: string): void {
    const { unit } = this
    if (name || !this.#unnamed || unit.hasUnnamed) return
    unit.takeUnnamed(true)
    const deliver = (message: wire.Message) => {
      if (message.type === 'E') unit.deliver(message)
    }
    unit.send({ bytes: this.#unnamed, expected: [{ ends: '1', deliver }] })
  }

  #execute({ body }: wire.Message): void {
    const name = wire.readCString(body)
    const { statement = unknown, parameters } = this.statements.portals.get(name.text) ?? {}
    const finish = this.unit.record(statement.text, parameters)
    const portal = this.statements.upstreamPortal(name.text)
    const execute = wire.frame('E', wire.cstring(portal), body.subarray(name.next))
    this.execution.run(statement, join(), execute, finish, portal)
  }

  #close({ body }: wire.Message): void {
    const { unit, statements } = this
    const { text: name } = wire.readCString(body, 1)
    const { deliver } = unit
    if (body[0] !== 0x53) {
      const portal = statements.upstreamPortal(name)
      statements.portals.delete(name)
      this.closed(portal)
      return unit.send({ bytes: wire.closePortal(portal), expected: [{ ends: '3', deliver }] })
    }
    const { bytes } = statements.close(name)
    unit.send({ bytes, expected: [{ ends: '3', deliver, done: statements.forget(name) }] })
  }
}

/** The parameters of a Bind message, as far as it is well-formed: the server has the say about that. */
function parametersOf(rest: Buffer): (string | null)[] {
  try {
    return wire.readParameters(rest)
  } catch {
    return []
  }
}

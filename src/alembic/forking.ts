import { createServer, type Server, type Socket } from 'node:net'
import { resolve } from 'node:path'
import { PassThrough } from 'node:stream'
import { Failure, messageOf } from '../failure'
import { type Answer, readAnswer } from './answer'
import { endedEarly, failureFrom } from './failures'
import {
  type Child,
  end,
  goneOf,
  greeting,
  type InterpreterOptions,
  lastWords,
  newNonce,
  type RunningPython,
  spawnPython,
  startPython,
  type WhyGone,
} from './interpreter'
import { readLines, textsOf } from './lines'
import { shownPath } from './shown-path'

/** How long an interpreter may take to end what it has forked, in milliseconds. */
const patience = 1_000

/** A run that is forked, until its connections have come. */
interface Fork {
  token: string
  requests: PassThrough
  answers: PassThrough
  prints: PassThrough
  sockets: Socket[]
  leave: (why: WhyGone) => void
  nonce: string
  isEnded: boolean
  /** Where it cannot be forked, it has an interpreter of its own. */
  alone: RunningPython | undefined
}

/** An interpreter that has imported what the commands themselves import, and is forked for each run. */
export class ForkingPython {
  readonly #child: Child
  readonly #nonce = newNonce()
  readonly #server: Server = createServer(socket => this.#connected(socket))
  readonly #listening: Promise<number>
  readonly #forks: Fork[] = []
  /** Why there will be no further fork. */
  #gone: WhyGone | undefined

  /** `print` gets what the interpreter and the wrapper command print themselves. */
  constructor(
    private readonly options: InterpreterOptions,
    private readonly print: (text: string) => void,
  ) {
    this.#child = spawnPython(options)
    this.#child.stdin.write(greeting(options, this.#nonce, { forks: { with_flask: options.withFlask } }))
    this.#listening = new Promise((resolve, reject) => {
      this.#server.on('error', reject)
      this.#server.listen(0, '127.0.0.1', () => {
        const address = this.#server.address()
        resolve(typeof address === 'object' && address ? address.port : 0)
      })
    })
    void goneOf(this.#child, options).then(why => this.#leave(why))
    const show = (text: string) => text !== '' && this.print(text)
    readLines(
      this.#child.stderr,
      () => 0,
      line => textsOf(line).forEach(show),
    )
    readLines(
      this.#child.stdout,
      () => 0,
      line => {
        const text = line.bytes.toString('utf8')
        if (text.startsWith(this.#nonce)) this.#hear(text.slice(this.#nonce.length))
        else textsOf(line).forEach(show)
      },
    )
  }

  /** Another run, as fresh as the first one. */
  fork(): RunningPython {
    const [nonce, token, run] = [newNonce(), newNonce(), this.#forks.length]
    const [requests, answers, prints] = [new PassThrough(), new PassThrough(), new PassThrough()]
    const gone = new Promise<WhyGone>(leave => {
      const begun = { sockets: [], isEnded: false, alone: undefined }
      this.#forks.push({ token, nonce, requests, answers, prints, leave, ...begun })
      if (this.#gone) leave(this.#gone)
    })
    this.#listening.then(
      port => this.#ask({ fork: { run, port, token, nonce } }),
      error =>
        this.#leave(() => new Failure('render-failed', `No port could be opened for Python: ${messageOf(error)}.`)),
    )
    return { nonce, requests, answers, prints: [prints], gone, kill: () => this.#kill(run) }
  }

  /** Ends the interpreter and all that was forked from it. */
  async end(): Promise<void> {
    for (const run of this.#forks.keys()) this.#kill(run)
    this.#server.close()
    // It ends when it has read everything.
    this.#child.stdin.end()
    const { exitCode, signalCode, pid } = this.#child
    if (pid !== undefined && exitCode === null && signalCode === null) {
      const ended = new Promise(resolve => this.#child.once('exit', resolve))
      await Promise.race([ended, new Promise(resolve => setTimeout(resolve, patience).unref())])
    }
    end(this.#child)
  }

  #kill(run: number): void {
    this.#ask({ kill: run })
    const fork = this.#forks[run]
    if (!fork) return
    fork.isEnded = true
    fork.alone?.kill()
    for (const socket of fork.sockets) socket.destroy()
    // The interpreter may not have come so far as to hear of it.
    this.#hasEnded({ run, code: null, signal: 'SIGKILL' })
  }

  #ask(request: object): void {
    if (this.#child.stdin.writable) this.#child.stdin.write(`${JSON.stringify(request)}\n`)
  }

  /** A fork says first whose it is, and what it is for. */
  #connected(socket: Socket): void {
    let start = Buffer.alloc(0)
    const hear = (chunk: Buffer) => {
      start = Buffer.concat([start, chunk])
      if (!start.includes(10) && start.length < 100) return
      socket.off('data', hear)
      this.#take(socket, start)
    }
    socket.setNoDelay()
    socket.on('error', () => {})
    socket.on('data', hear)
  }

  #take(socket: Socket, start: Buffer): void {
    const [, token, purpose] = /^(\w+) (answers|prints)\n/.exec(start.toString('latin1', 0, 100)) ?? []
    const fork = this.#forks.find(each => each.token === token)
    if (!fork) return void socket.destroy()
    fork.sockets.push(socket)
    socket.pause()
    socket.unshift(start.subarray(start.indexOf(10) + 1))
    socket.pipe(purpose === 'prints' ? fork.prints : fork.answers)
    if (purpose === 'answers') fork.requests.pipe(socket)
  }

  #hear(json: string): void {
    const { ended, failed, alone } = readAnswer(json) ?? {}
    const telling = { project: undefined, at: undefined, shown: (path: string) => this.#shown(path) }
    const failure = failed && failureFrom(failed, telling)
    if (failure instanceof Failure) this.#leave(() => failure)
    if (alone !== undefined) this.#startAlone(this.#forks[alone])
    if (ended && !this.#forks[ended.run]?.alone) this.#hasEnded(ended)
  }

  #hasEnded({ run, code, signal }: NonNullable<Answer['ended']>): void {
    const leave = () => this.#forks[run]?.leave(at => endedEarly(this.options.python, code, signal, at))
    setTimeout(leave, lastWords).unref()
  }

  #startAlone(fork: Fork | undefined): void {
    if (!fork || fork.isEnded || fork.alone) return
    const python = startPython(this.options, fork.nonce)
    fork.alone = python
    fork.requests.pipe(python.requests)
    python.answers.pipe(fork.answers)
    for (const stream of python.prints) stream.pipe(fork.prints)
    void python.gone.then(fork.leave)
  }

  #leave(why: WhyGone): void {
    this.#gone ??= why
    for (const { leave } of this.#forks) leave(this.#gone)
  }

  #shown(path: string): string {
    return shownPath(resolve(this.options.workingDirectory, path))
  }
}

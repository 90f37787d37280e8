import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A Chromium without a window, driven by its DevTools protocol. */
export interface Chromium {
  /** A PNG picture of the page's whole length, as wide as asked, at two pixels for one. */
  picture(url: string, width: number): Promise<Buffer>
  stop(): Promise<void>
}

type Answer = { id?: number; method?: string; sessionId?: string; result?: never; error?: { message: string } }

export async function startChromium(command: string): Promise<Chromium> {
  const profile = mkdtempSync(join(tmpdir(), 'atomic-upgrade-chromium-'))
  const sandbox = process.getuid?.() === 0 ? ['--no-sandbox'] : []
  const child = spawn(command, [
    '--headless=new',
    '--remote-debugging-port=0',
    `--user-data-dir=${profile}`,
    '--hide-scrollbars',
    '--disable-gpu',
    ...sandbox,
  ])
  const socket = new WebSocket(await addressOf(child))
  await new Promise((done, failed) => {
    socket.onopen = done
    socket.onerror = failed
  })
  let ids = 0
  const waiting = new Map<number, (answer: Answer) => void>()
  let loaded = () => {}
  socket.onmessage = ({ data }) => {
    const answer = JSON.parse(String(data)) as Answer
    if (answer.id !== undefined) waiting.get(answer.id)?.(answer)
    else if (answer.method === 'Page.loadEventFired') loaded()
  }
  let sessionId: string | undefined
  const ask = <T,>(method: string, params: object = {}): Promise<T> =>
    new Promise((resolve, reject) => {
      const id = ++ids
      waiting.set(id, ({ result, error }) => {
        waiting.delete(id)
        if (error) reject(new Error(`${method}: ${error.message}`))
        else resolve(result as T)
      })
      socket.send(JSON.stringify({ id, method, params, sessionId }))
    })
  const { targetId } = await ask<{ targetId: string }>('Target.createTarget', { url: 'about:blank' })
  sessionId = (await ask<{ sessionId: string }>('Target.attachToTarget', { targetId, flatten: true })).sessionId
  await ask('Page.enable')
  return {
    async picture(url, width) {
      const metrics = { width, height: 100, deviceScaleFactor: 2, mobile: false }
      await ask('Emulation.setDeviceMetricsOverride', metrics)
      const done = new Promise<void>(resolve => {
        loaded = resolve
      })
      await ask('Page.navigate', { url })
      await done
      const expression = 'document.documentElement.scrollHeight'
      const { result } = await ask<{ result: { value: number } }>('Runtime.evaluate', { expression })
      const clip = { x: 0, y: 0, width, height: result.value, scale: 1 }
      const { data } = await ask<{ data: string }>('Page.captureScreenshot', { captureBeyondViewport: true, clip })
      return Buffer.from(data, 'base64')
    },
    async stop() {
      const gone = new Promise(done => child.once('exit', done))
      socket.close()
      child.kill()
      await gone
      rmSync(profile, { recursive: true, force: true })
    },
  }
}

/** The address that Chromium says it listens on. */
function addressOf(child: ChildProcess): Promise<string> {
  let said = ''
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`Chromium ended with ${code}:\n${said}`)))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text
      const address = /DevTools listening on (ws:\S+)/.exec(said)?.[1]
      if (address) resolve(address)
    })
  })
}

// A client of QEMU's qtest protocol: starts QEMU stopped (`-accel qtest`), sends lines, reads one answer a
// line. Lines are collected and sent together; answers come in order.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** QEMU could not be started: what to do about it. */
export class MissingQemu extends Error {}

/** What goes before QEMU's arguments. */
function command(binary: string): string[] {
  const { QEMU, QEMU_WRAP } = process.env
  return [...(QEMU_WRAP ?? '').split(' ').filter(Boolean), QEMU ?? binary]
}

/** The version that QEMU says it is, such as 11.1.3. */
export function qemuVersion(binary: string): string {
  const [program, ...rest] = command(binary)
  const { stdout } = spawnSync(program!, [...rest, '--version'], { encoding: 'utf8' })
  return /version ([\d.]+)/.exec(stdout ?? '')?.[1] ?? 'of unknown version'
}

/** Milliseconds that QEMU may take to connect. */
const PATIENCE = 20_000

interface Waiter {
  readonly line: string
  resolve(answer: string): void
  reject(e: Error): void
}

export interface QemuOptions {
  /** `qemu-system-x86_64` or `qemu-system-aarch64`; QEMU in the environment replaces it. */
  readonly binary: string
  readonly args: readonly string[]
}

/** One running QEMU. */
export class QTest {
  readonly #socket: Socket
  readonly #stop: () => Promise<void>
  readonly #waiters: Waiter[] = []
  #output: string[] = []
  #input = ''
  #gone: Error | undefined

  private constructor(socket: Socket, stop: () => Promise<void>, closed: () => string) {
    this.#socket = socket
    this.#stop = stop
    socket.setEncoding('latin1')
    socket.on('data', data => this.#receive(String(data)))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#gone = new Error(`QEMU is gone. ${closed()}`.trim())
      for (const w of this.#waiters.splice(0)) w.reject(this.#gone)
    })
  }

  static async start({ binary, args }: QemuOptions): Promise<QTest> {
    const folder = mkdtempSync(join(process.env['QT_TMP'] ?? tmpdir(), 'qtest-'))
    const path = join(folder, 's')
    const clean = () => rmSync(folder, { recursive: true, force: true })
    const server = createServer()
    await new Promise<void>(resolve => server.listen(path, resolve))
    const line = [
      ...command(binary),
      ...['-display', 'none', '-nodefaults', '-accel', 'qtest', '-qtest', `unix:${path}`],
      ...['-qtest-log', '/dev/null', '-monitor', 'none', '-serial', 'none'],
      ...args,
    ]
    const child = spawn(line[0]!, line.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] })
    let stderr = ''
    child.stderr.on('data', data => {
      stderr = (stderr + String(data)).slice(-2000)
    })
    const exited = new Promise<void>(resolve => {
      child.once('exit', () => resolve())
      child.once('error', () => resolve())
    })
    // However this program ends, QEMU does not outlive it.
    const kill = () => {
      child.kill('SIGKILL')
      clean()
    }
    process.once('exit', kill)
    const stop = async () => {
      process.off('exit', kill)
      child.kill('SIGKILL')
      await exited
      clean()
    }
    try {
      const socket = await new Promise<Socket>((resolve, reject) => {
        const refuse = (why: string) => reject(new MissingQemu(missing(line, why)))
        server.once('connection', resolve)
        child.once('error', e => refuse(e.message))
        child.once('exit', code => refuse(`it ended with status ${code}. ${stderr.trim()}`))
        setTimeout(() => refuse('it did not connect to its qtest socket'), PATIENCE).unref()
      })
      server.close()
      return new QTest(socket, stop, () => stderr.trim())
    } catch (e) {
      server.close()
      await stop()
      throw e
    }
  }

  /** Queues a line; `flush` sends it. */
  send(line: string): Promise<string> {
    if (this.#gone) return Promise.reject(this.#gone)
    this.#output.push(line)
    return new Promise((resolve, reject) => this.#waiters.push({ line, resolve, reject }))
  }

  /** Queues a line nobody waits for; an error of it ends the next `drain`. */
  post(line: string): void {
    this.send(line).catch((e: unknown) => {
      this.#gone ??= e instanceof Error ? e : new Error(String(e))
    })
  }

  flush(): void {
    if (this.#output.length === 0) return
    this.#socket.write(`${this.#output.join('\n')}\n`)
    this.#output = []
  }

  /** Sends what is queued and waits for the last answer. */
  async drain(): Promise<void> {
    const last = this.read(0x1000, 4)
    this.flush()
    await last
    if (this.#gone) throw this.#gone
  }

  /** Reads memory or a register of 1, 2, 4 or 8 bytes. */
  async read(at: bigint | number, size: 4 | 8): Promise<bigint> {
    return BigInt(await this.send(`${size === 4 ? 'readl' : 'readq'} ${hex(at)}`))
  }

  write(at: bigint | number, size: 4 | 8, value: bigint | number): void {
    this.post(`${size === 4 ? 'writel' : 'writeq'} ${hex(at)} ${hex(value)}`)
  }

  clear(at: number, bytes: number): void {
    this.post(`memset ${hex(at)} ${hex(bytes)} 0x0`)
  }

  async bytes(at: number, length: number): Promise<Uint8Array> {
    const text = await this.send(`read ${hex(at)} ${hex(length)}`)
    return Uint8Array.from(Buffer.from(text.slice(2), 'hex'))
  }

  outl(port: number, value: number): void {
    this.post(`outl ${hex(port)} ${hex(value >>> 0)}`)
  }

  async inl(port: number): Promise<number> {
    return Number(await this.send(`inl ${hex(port)}`))
  }

  step(nanoseconds: number): void {
    this.post(`clock_step ${nanoseconds}`)
  }

  async quit(): Promise<void> {
    this.#socket.destroy()
    await this.#stop()
  }

  #receive(data: string): void {
    const lines = (this.#input + data).split('\n')
    this.#input = lines.pop()!
    for (const line of lines) {
      if (line.startsWith('IRQ ')) continue
      const waiter = this.#waiters.shift()
      if (line.startsWith('OK')) waiter?.resolve(line.slice(2).trim())
      else waiter?.reject(new Error(`qtest answers '${line}' to '${waiter.line}'`))
    }
  }
}

const hex = (v: bigint | number): string => `0x${BigInt.asUintN(64, BigInt(v)).toString(16)}`

const missing = (command: readonly string[], why: string): string =>
  [
    `QEMU could not be used: ${why}`,
    `  tried: ${command.slice(0, 3).join(' ')} …`,
    'This comparison needs QEMU 11 or newer with qtest. Where it is found, in the environment:',
    '  QEMU       the program itself (default: qemu-system-x86_64 or qemu-system-aarch64 on PATH)',
    '  QEMU_WRAP  a command to put before it, such as one that enters a chroot',
    '  QT_TMP     a folder for its socket that it sees under the same name (default: the system one)',
  ].join('\n')

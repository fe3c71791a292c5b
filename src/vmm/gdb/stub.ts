// The debugger's end of gdb's remote protocol (gdb manual, appendix E) for one processor: packets in, packets out, and a
// state that whoever runs the guest goes by. All input is the peer's: what makes no sense is answered, never thrown at.

import { ErrnoError } from '../../base/errno.js'
import { MemoryBreakpoints } from './memory.js'
import { fromHex, hexNumber, PACKET_SIZE, PacketReader, packet, toHex } from './packets.js'
import {
  type DebuggedCpu,
  type DebugTarget,
  describeTarget,
  type HardwareKind,
  type HardwarePoint,
  numberOf,
  type Stop,
} from './target.js'

/** What is to happen with the guest: wait, run, run one instruction, run without a debugger, end. */
export type StubState = 'stopped' | 'running' | 'stepping' | 'detached' | 'killed'

const KINDS: Readonly<Record<string, HardwareKind>> = {
  1: 'execute',
  2: 'write',
  3: 'read',
  4: 'access',
}
const WATCH: Readonly<Record<HardwareKind, string>> = {
  execute: 'hwbreak',
  write: 'watch',
  read: 'rwatch',
  access: 'awatch',
}
const SIGINT = 2
const SIGTRAP = 5
/** Replies: no such thing (gdb goes on without), an error, done. */
const UNSUPPORTED = ''
const ERROR = 'E01'
const OK = 'OK'
const FEATURES = `PacketSize=${PACKET_SIZE.toString(16)};QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+`

/** Serves one debugger. */
export class GdbStub {
  readonly #target: DebugTarget
  readonly #memory: MemoryBreakpoints
  readonly #send: (bytes: Uint8Array) => void
  readonly #reader = new PacketReader()
  readonly #xml: string
  #points: HardwarePoint[] = []
  #state: StubState = 'stopped'
  #acknowledges = true
  #last = new Uint8Array(0)
  #stopReply = `S0${SIGTRAP}`
  #interrupt = false

  /** `send` takes what goes to the debugger. */
  constructor(cpu: DebuggedCpu, target: DebugTarget, send: (bytes: Uint8Array) => void) {
    this.#target = target
    this.#memory = new MemoryBreakpoints(cpu, target)
    this.#send = send
    this.#xml = describeTarget(target)
  }

  get state(): StubState {
    return this.#state
  }

  /** Whether the debugger asked a running guest to stop. */
  get interrupted(): boolean {
    return this.#interrupt
  }

  /** Takes bytes of the debugger. */
  receive(bytes: Uint8Array): void {
    for (const incoming of this.#reader.read(bytes)) {
      switch (incoming.kind) {
        case 'packet':
          if (this.#acknowledges) this.#send(Uint8Array.of(0x2b))
          this.#serve(incoming.text)
          break
        case 'bad':
          if (this.#acknowledges) this.#send(Uint8Array.of(0x2d))
          break
        case 'nack':
          this.#send(this.#last)
          break
        case 'interrupt':
          if (this.#state === 'running' || this.#state === 'stepping') this.#interrupt = true
      }
    }
  }

  /** The guest left with KVM_EXIT_DEBUG. */
  stopped(): void {
    const stop = this.#target.reason(this.#points)
    // A breakpoint instruction that the debugger did not put there is the guest's, which goes on.
    if (stop.kind === 'software' && !this.#memory.has(this.#pc)) this.#target.reflect()
    else this.#report(this.#stopText(stop))
  }

  /** The guest was taken out of KVM_RUN because the debugger asked. */
  stoppedByRequest(): void {
    this.#report(`T0${SIGINT}thread:01;`)
  }

  /** The guest ended; `code` is its exit status. */
  exited(code: number): void {
    this.#state = 'detached'
    this.#reply(`W${(code & 0xff).toString(16).padStart(2, '0')}`)
  }

  /** The debugger is gone: what it left in memory and registers is taken back. */
  disconnected(): void {
    if (this.#state !== 'killed' && this.#state !== 'detached') this.#detach()
  }

  #report(text: string): void {
    this.#state = 'stopped'
    this.#interrupt = false
    this.#stopReply = text
    this.#reply(text)
  }

  #stopText(stop: Stop): string {
    const start = `T0${SIGTRAP}thread:01;`
    if (stop.kind === 'software') return `${start}swbreak:;`
    if (stop.kind === 'hardware') return `${start}hwbreak:;`
    if (stop.kind === 'step') return start
    return `${start}${WATCH[stop.point.kind]}:${stop.address.toString(16)};`
  }

  #reply(text: string): void {
    this.#last = Uint8Array.from(packet(text))
    this.#send(this.#last)
  }

  #serve(text: string): void {
    // A running guest takes nothing but the interrupt.
    if (this.#state !== 'stopped') return
    let reply: string | undefined
    try {
      reply = this.#command(text)
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error
      reply = ERROR
    }
    if (reply !== undefined) this.#reply(reply)
    if (text === 'QStartNoAckMode') this.#acknowledges = false
  }

  // The answer, or undefined: there is none until the guest stops.
  #command(text: string): string | undefined {
    const rest = text.slice(1)
    switch (text[0]) {
      case '?':
        return this.#stopReply
      case 'g':
        return this.#target.readRegisters().map(toHex).join('')
      case 'G':
        return this.#writeAll(rest)
      case 'p':
        return this.#readOne(rest)
      case 'P':
        return this.#writeOne(rest)
      case 'm':
        return this.#readMemory(rest)
      case 'M':
      case 'X':
        return this.#writeMemory(rest, text[0] === 'X')
      case 'Z':
      case 'z':
        return this.#point(rest, text[0] === 'Z')
      case 'c':
      case 's':
        return this.#resume(text[0] === 's', rest)
      case 'C':
      case 'S':
        return this.#resume(text[0] === 'S', rest.split(';')[1] ?? '')
      case 'H':
      case 'T':
        return OK
      case 'D':
        this.#detach()
        return OK
      case 'k':
        this.#state = 'killed'
        return undefined
      case 'v':
        return this.#v(text)
      case 'q':
      case 'Q':
        return this.#query(text)
    }
    return UNSUPPORTED
  }

  #v(text: string): string | undefined {
    if (text === 'vCont?') return 'vCont;c;C;s;S'
    if (text.startsWith('vKill')) {
      this.#state = 'killed'
      return OK
    }
    const action = /^vCont;([cs]|[CS][0-9a-f]{2})(:|;|$)/i.exec(text)?.[1]
    if (action === undefined) return text.startsWith('vCont;') ? ERROR : UNSUPPORTED
    return this.#resume(action[0]!.toLowerCase() === 's', '')
  }

  #query(text: string): string {
    const [name] = text.split(/[:;,]/)
    switch (name) {
      case 'qSupported':
        return FEATURES
      case 'QStartNoAckMode':
        return OK
      case 'qAttached':
        return '1'
      case 'qC':
        return 'QC01'
      case 'qfThreadInfo':
        return 'm01'
      case 'qsThreadInfo':
        return 'l'
      case 'qXfer':
        return this.#transfer(text)
    }
    return UNSUPPORTED
  }

  #transfer(text: string): string {
    const asked = /^qXfer:features:read:target\.xml:([0-9a-f]{1,8}),([0-9a-f]{1,8})$/i.exec(text)
    if (asked === null) return text.startsWith('qXfer:features:read:') ? 'E00' : UNSUPPORTED
    const at = Number.parseInt(asked[1]!, 16)
    const length = Math.min(Number.parseInt(asked[2]!, 16), PACKET_SIZE - 64)
    const more = at + length < this.#xml.length
    return (more ? 'm' : 'l') + this.#xml.slice(at, at + length)
  }

  // ---- registers ----

  #writeAll(text: string): string {
    const given = fromHex(text)
    const now = this.#target.readRegisters()
    const length = now.reduce((n, r) => n + r.length, 0)
    if (given?.length !== length) return ERROR
    const values = new Map<number, Uint8Array>()
    let at = 0
    for (const [n, register] of now.entries()) {
      const bytes = given.subarray(at, at + register.length)
      if (toHex(bytes) !== toHex(register)) values.set(n, bytes)
      at += register.length
    }
    return this.#target.writeRegisters(values) ? OK : ERROR
  }

  #readOne(text: string): string {
    const n = hexNumber(text)
    const register = n === undefined ? undefined : this.#target.readRegisters()[Number(n)]
    return register === undefined ? ERROR : toHex(register)
  }

  #writeOne(text: string): string {
    const [number = '', value = ''] = text.split('=')
    const n = hexNumber(number)
    const bytes = fromHex(value)
    if (n === undefined || bytes === undefined) return ERROR
    const register = this.#target.readRegisters()[Number(n)]
    if (register?.length !== bytes.length) return ERROR
    return this.#target.writeRegisters(new Map([[Number(n), bytes]])) ? OK : ERROR
  }

  // ---- memory ----

  #readMemory(text: string): string {
    const [at, length] = range(text)
    if (at === undefined || length === undefined || length > PACKET_SIZE / 2) return ERROR
    const bytes = this.#memory.read(at, length)
    return bytes.length === 0 && length > 0 ? ERROR : toHex(bytes)
  }

  #writeMemory(text: string, binary: boolean): string {
    const colon = text.indexOf(':')
    const [at, length] = range(text.slice(0, Math.max(0, colon)))
    const data = text.slice(colon + 1)
    const bytes = binary ? Uint8Array.from(data, c => c.charCodeAt(0)) : fromHex(data)
    if (colon < 0 || at === undefined || bytes?.length !== length) return ERROR
    return this.#memory.write(at, bytes!) ? OK : ERROR
  }

  // ---- break- and watchpoints ----

  #point(text: string, insert: boolean): string {
    const [type = '', at = '', size = ''] = text.split(';')[0]!.split(',')
    const address = hexNumber(at)
    const length = Number(hexNumber(size) ?? -1n)
    if (address === undefined || length < 0) return ERROR
    if (type === '0') {
      const done = insert ? this.#memory.insert(address) : this.#memory.remove(address)
      return done ? OK : ERROR
    }
    const kind = KINDS[type]
    if (kind === undefined) return UNSUPPORTED
    const point = { kind, address, length }
    const same = (p: HardwarePoint) =>
      p.kind === kind && p.address === address && p.length === length
    if (!insert) {
      this.#points = this.#points.filter(p => !same(p))
      return OK
    }
    if (this.#points.some(same)) return OK
    const can = this.#target.canPlace(point, this.#points)
    if (can !== 'yes') return can === 'no' ? ERROR : UNSUPPORTED
    this.#points.push(point)
    return OK
  }

  // ---- running ----

  #resume(step: boolean, at: string): string | undefined {
    if (at !== '') {
      const address = hexNumber(at)
      if (address === undefined || !this.#goTo(address)) return ERROR
    }
    this.#target.arm({ step, software: this.#memory.any, points: this.#points })
    this.#state = step ? 'stepping' : 'running'
    return undefined
  }

  get #pcNumber(): number {
    const registers = this.#target.features.flatMap(f => f.registers)
    return registers.findIndex(r => r.type === 'code_ptr')
  }

  get #pc(): bigint {
    return numberOf(this.#target.readRegisters()[this.#pcNumber]!)
  }

  #goTo(address: bigint): boolean {
    const view = new DataView(new ArrayBuffer(8))
    view.setBigUint64(0, address, true)
    return this.#target.writeRegisters(new Map([[this.#pcNumber, new Uint8Array(view.buffer)]]))
  }

  #detach(): void {
    this.#memory.clear()
    this.#points = []
    this.#interrupt = false
    this.#target.arm({ step: false, software: false, points: [] })
    this.#state = 'detached'
  }
}

// `addr,length`
function range(text: string): [bigint | undefined, number | undefined] {
  const [at = '', length = '', ...more] = text.split(',')
  const size = hexNumber(length)
  if (more.length > 0 || size === undefined || size > 0xffff_ffffn) return [undefined, undefined]
  return [hexNumber(at), Number(size)]
}

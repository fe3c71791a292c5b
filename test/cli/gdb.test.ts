// `run --gdb` by a socket: one debugger at a time, which stops a running guest, kills it, or leaves it to itself.
import { connect, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { debugGuest, GUEST, readImage } from '../../src/cli/guest.js'
import { DEFAULT_MACHINE } from '../../src/cli/machine-file.js'
import { createMachine } from '../../src/machine.js'
import { packet } from '../../src/vmm/gdb/packets.js'

/** A debugger's socket: what it sends is waited for by what comes back. */
class Debugger {
  readonly #socket: Socket
  #said = ''
  #heard = () => {}

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1')
    this.#socket.on('data', bytes => {
      this.#said += bytes.toString('latin1')
      this.#heard()
    })
    this.#socket.on('close', () => this.#heard())
    this.#socket.on('error', () => this.#heard())
  }

  send(text: string): void {
    this.#socket.write(packet(text))
  }

  raw(bytes: string): void {
    this.#socket.write(Buffer.from(bytes, 'latin1'))
  }

  /** Waits until a packet of this text has come; everything up to it is taken. */
  async until(text: string): Promise<void> {
    for (;;) {
      const at = this.#said.indexOf(`$${text}#`)
      if (at >= 0) {
        this.#said = this.#said.slice(at + text.length + 4)
        return
      }
      if (this.#socket.destroyed) throw new Error(`closed before ${text}: ${this.#said}`)
      await this.#more()
    }
  }

  async closed(): Promise<void> {
    while (!this.#socket.destroyed) await this.#more()
  }

  close(): void {
    this.#socket.destroy()
  }

  #more(): Promise<void> {
    return new Promise(resolve => {
      this.#heard = resolve
    })
  }
}

/** Runs the guest of the main job under what `script` does; how it ended, and whether anything is held. */
async function under(script: (d: Debugger, port: number) => Promise<void>) {
  const machine = createMachine(DEFAULT_MACHINE)
  let done: Promise<void> | undefined
  const end = await debugGuest(machine, readImage(GUEST), {
    port: 0,
    listening: port => {
      done = script(new Debugger(port), port)
    },
  })
  await done
  return { end, held: Object.values(machine.holdings()).some(n => n !== 0) }
}

describe('run --gdb', () => {
  it('byte 3 stops a running guest, which then can be looked at and killed; nothing is held', async () => {
    const result = await under(async d => {
      d.send('c')
      d.raw('\x03')
      await d.until('T02thread:01;')
      d.send('?')
      await d.until('T02thread:01;')
      d.send('k')
      await d.closed()
    })
    expect(result).toEqual({ end: { kind: 'killed' }, held: false })
  })

  it('a guest whose debugger goes away runs to its end, whatever the debugger had sent', async () => {
    const result = await under(async d => {
      d.raw('$g#00 noise \x00\xff$$$#')
      d.send('Z0,100000,1')
      await d.until('OK')
      d.send('m0,')
      await d.until('E01')
      d.close()
    })
    expect(result).toEqual({ end: { kind: 'exit', code: 0 }, held: false })
  })

  it('a second debugger is turned away, and the end of the guest is told', async () => {
    const result = await under(async (d, port) => {
      d.send('qC')
      await d.until('QC01')
      await new Debugger(port).closed()
      d.send('vCont;c')
      await d.until('W00')
      await d.closed()
    })
    expect(result).toEqual({ end: { kind: 'exit', code: 0 }, held: false })
  })

  it('a port that cannot be had is refused', async () => {
    const result = under(async (d, port) => {
      const other = debugGuest(createMachine(DEFAULT_MACHINE), readImage(GUEST), {
        port,
        listening: () => {},
      })
      await expect(other).rejects.toThrow(/no debugger can come in/)
      d.send('k')
    })
    expect((await result).end).toEqual({ kind: 'killed' })
  })
})

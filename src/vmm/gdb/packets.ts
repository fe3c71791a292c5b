// Packets of gdb's remote serial protocol (gdb manual, appendix E.1): `$`, text, `#`, two checksum digits; `+` and `-`
// acknowledge, byte 3 outside a packet interrupts. Run-length encoding is read by gdb only and never sent here.

/** What came in. */
export type Incoming =
  | { readonly kind: 'packet'; readonly text: string }
  /** A packet whose checksum is wrong, or that is longer than any may be: to be sent again. */
  | { readonly kind: 'bad' }
  | { readonly kind: 'ack' | 'nack' | 'interrupt' }

/** Most bytes between `$` and `#`, as qSupported announces. */
export const PACKET_SIZE = 0x4000

const START = 0x24
const END = 0x23
const ESCAPE = 0x7d

/** Takes a stream of bytes apart. Text is one character a byte, escapes resolved. */
export class PacketReader {
  #state: 'outside' | 'inside' | 'checksum' = 'outside'
  #body: number[] = []
  #digits = ''

  /** The packets and signs that these bytes complete. Any bytes are taken; what fits nowhere is skipped. */
  read(bytes: Uint8Array): Incoming[] {
    return Array.from(bytes, byte => this.#take(byte)).filter(found => found !== undefined)
  }

  #take(byte: number): Incoming | undefined {
    switch (this.#state) {
      case 'outside':
        if (byte === START) this.#begin()
        else if (byte === 0x2b) return { kind: 'ack' }
        else if (byte === 0x2d) return { kind: 'nack' }
        else if (byte === 3) return { kind: 'interrupt' }
        return undefined
      case 'inside':
        if (byte === START) this.#begin()
        else if (byte === END) this.#state = 'checksum'
        else if (this.#body.length >= PACKET_SIZE) return this.#refuse()
        else this.#body.push(byte)
        return undefined
      case 'checksum':
        if (byte === START) {
          this.#begin()
          return { kind: 'bad' }
        }
        this.#digits += String.fromCharCode(byte)
        return this.#digits.length < 2 ? undefined : this.#finish()
    }
  }

  #begin(): void {
    this.#state = 'inside'
    this.#body = []
    this.#digits = ''
  }

  #refuse(): Incoming {
    this.#state = 'outside'
    return { kind: 'bad' }
  }

  #finish(): Incoming {
    const good = /^[0-9a-f]{2}$/i.test(this.#digits)
    if (!good || Number.parseInt(this.#digits, 16) !== sum(this.#body)) return this.#refuse()
    this.#state = 'outside'
    let text = ''
    for (let i = 0; i < this.#body.length; i++) {
      const escaped = this.#body[i] === ESCAPE && i + 1 < this.#body.length
      text += String.fromCharCode(escaped ? this.#body[++i]! ^ 0x20 : this.#body[i]!)
    }
    return { kind: 'packet', text }
  }
}

/** A packet around text of one character a byte. */
export function packet(text: string): Uint8Array {
  const body: number[] = []
  for (const character of text) {
    const code = character.charCodeAt(0) & 0xff
    // `#`, `$`, `}` and `*` mean something in a packet.
    if (code === START || code === END || code === ESCAPE || code === 0x2a)
      body.push(ESCAPE, code ^ 0x20)
    else body.push(code)
  }
  const digits = sum(body).toString(16).padStart(2, '0')
  return Uint8Array.from([START, ...body, END, digits.charCodeAt(0), digits.charCodeAt(1)])
}

const sum = (bytes: readonly number[]): number => bytes.reduce((a, b) => (a + b) & 0xff, 0)

/** Bytes as pairs of digits. */
export const toHex = (bytes: Uint8Array): string =>
  Array.from(bytes, b => b.toString(16).padStart(2, '0')).join('')

/** Pairs of digits as bytes; undefined for anything else. */
export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(text)) return undefined
  return Uint8Array.from({ length: text.length / 2 }, (_, i) =>
    Number.parseInt(text.slice(2 * i, 2 * i + 2), 16),
  )
}

/** A number of up to 16 hexadecimal digits; undefined for anything else. */
export const hexNumber = (text: string): bigint | undefined =>
  /^[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text}`) : undefined

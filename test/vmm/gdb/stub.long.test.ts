// The debugger's end of gdb's remote protocol, by a scripted debugger, on guests of both processors.
import { describe, expect, it } from 'vitest'
import { PacketReader, packet } from '../../../src/vmm/gdb/packets.js'
import { describeTarget } from '../../../src/vmm/gdb/target.js'
import { AT, I } from '../../cpu/kvm-arm64/guest.js'
import { xorshift } from '../../support/random.js'
import { arm64Subject, Client, little, type Subject, x86Subject } from './client.js'

const hex = (n: number) => n.toString(16)

/** Three times the same program: nop, nop, store to data, load from it, nop, and a loop. */
interface Kind {
  readonly name: string
  readonly make: () => Subject
  /** Offsets of the instructions, the loop's last. */
  readonly at: readonly number[]
  /** Whether a watchpoint stops before the access. */
  readonly before: boolean
  readonly registers: number
  readonly breakpoint: string
  /** A guest that stops itself at once; its handler counts in register `counter` and goes on at `after`. */
  readonly own: () => Subject
  readonly after: number
  readonly counter: number
}

const KINDS: readonly Kind[] = [
  {
    name: 'x86-64',
    // nop; nop; mov %eax, 0x20000; mov 0x20000, %ecx; nop; jmp .
    make: () => x86Subject('90 90 89 04 25 00 00 02 00 8b 0c 25 00 00 02 00 90 eb fe'),
    at: [0, 1, 2, 9, 16, 17],
    before: false,
    registers: 24 + 8 + 8 + 17 + 2,
    breakpoint: 'cc',
    // int3; inc %ebx; nop; jmp . : the handler (out; iretq) is the harness's, its report is passed over.
    own: () => x86Subject('cc ff c3 90 eb fe'),
    after: 3,
    counter: 1,
  },
  {
    name: 'arm64',
    make: () => arm64Subject([I.nop, I.nop, I.put, I.get, I.nop, I.stay]),
    at: [0, 4, 8, 12, 16, 20],
    before: true,
    registers: 34 + 34 + 11,
    breakpoint: '000020d4',
    own: () => {
      // brk; nop; stay. The handler: add w0, w0, #1; mrs x4, elr_el1; add x4, x4, #4; msr elr_el1, x4; eret
      const subject = arm64Subject([I.brk, I.nop, I.stay])
      const words = [I.inc0, 0xd538_4024, 0x9100_1084, 0xd518_4024, I.eret]
      const view = new DataView(subject.cpu.ram.buffer, subject.cpu.ram.byteOffset)
      words.forEach((word, i) => {
        view.setUint32(AT.VECTORS - AT.CODE + 0x200 + 4 * i, word, true)
      })
      const n = subject.target.features
        .flatMap(f => f.registers)
        .findIndex(r => r.name === 'VBAR_EL1')
      const vbar = new BigUint64Array([BigInt(AT.VECTORS)])
      subject.target.writeRegisters(new Map([[n, new Uint8Array(vbar.buffer)]]))
      return subject
    },
    after: 4,
    counter: 0,
  },
]

describe.each(KINDS)('gdb on $name', kind => {
  const { make, at, before, registers, breakpoint, own, after, counter } = kind
  const start = () => new Client(make())
  const place = (c: Client, n: number) => hex(c.subject.code + at[n]!)
  const pcOf = (c: Client, n: number) => BigInt(c.subject.code + at[n]!)

  it('says what it can do, and describes its registers', () => {
    const c = start()
    expect(c.ask('qSupported:swbreak+;hwbreak+')).toContain('qXfer:features:read+')
    let xml = ''
    for (let more = true; more; ) {
      const part = c.ask(`qXfer:features:read:target.xml:${hex(xml.length)},200`)!
      more = part[0] === 'm'
      xml += part.slice(1).replace(/}(.)/gs, (_, x) => String.fromCharCode(x.charCodeAt(0) ^ 32))
    }
    expect(xml).toBe(describeTarget(c.subject.target))
    expect(xml.match(/<reg /g)).toHaveLength(registers)
    expect(c.ask('qXfer:features:read:other.xml:0,200')).toBe('E00')
  })

  it('g has every register of the description, and G sets them', () => {
    const c = start()
    const bits = c.subject.target.features.flatMap(f => f.registers).reduce((n, r) => n + r.bits, 0)
    const all = c.ask('g')!
    expect(all.length).toBe(bits / 4)
    const changed = `efcdab8967452301${all.slice(16)}`
    expect(c.ask(`G${changed}`)).toBe('OK')
    expect(c.ask('g')).toBe(changed)
    expect(little(c.ask('p0')!)).toBe(0x0123_4567_89ab_cdefn)
  })

  it('P sets one register, of its length and number', () => {
    const c = start()
    expect(c.ask('P3=8877665544332211')).toBe('OK')
    expect(c.ask('p3')).toBe('8877665544332211')
    for (const bad of ['P3=00', 'Pff=0000000000000000', 'P3', 'P', 'Pxy=00', 'p', 'pfff'])
      expect(c.ask(bad), bad).toBe('E01')
  })

  it('M and X write memory that m reads, and addresses without memory are errors', () => {
    const c = start()
    const data = hex(c.subject.data)
    expect(c.ask(`M${data},4:01020304`)).toBe('OK')
    expect(c.ask(`m${data},6`)).toBe('010203040000')
    expect(c.ask(`X${data},2:#}`)).toBe('OK')
    expect(c.ask(`m${data},4`)).toBe('237d0304')
    for (const bad of [
      'm7fffffff0000,4',
      'M7fffffff0000,1:00',
      `M${data},2:00`,
      `m${data}`,
      'm,',
      'M:',
    ])
      expect(c.ask(bad), bad).toBe('E01')
  })

  it('s and vCont;s run one instruction, and s goes to an address first', () => {
    const c = start()
    expect(c.resume('s')).toBe('T05thread:01;')
    expect(c.pc).toBe(pcOf(c, 1))
    expect(c.resume('vCont;s:1;c')).toBe('T05thread:01;')
    expect(c.pc).toBe(pcOf(c, 2))
    expect(c.resume(`s${place(c, 0)}`)).toBe('T05thread:01;')
    expect(c.pc).toBe(pcOf(c, 1))
  })

  it('Z0 stops at its instruction, is hidden in memory, and is gone after z0', () => {
    const c = start()
    const size = breakpoint.length / 2
    const original = c.ask(`m${place(c, 1)},${hex(size)}`)
    expect(c.ask(`Z0,${place(c, 1)},${size}`)).toBe('OK')
    expect(c.ask(`m${place(c, 1)},${hex(size)}`)).toBe(original)
    const { ram, ramBase } = c.subject.cpu
    const there = c.subject.code + at[1]! - ramBase
    expect(Buffer.from(ram.subarray(there, there + size)).toString('hex')).toBe(breakpoint)
    expect(c.resume('c')).toBe('T05thread:01;swbreak:;')
    expect(c.pc).toBe(pcOf(c, 1))
    expect(c.ask(`z0,${place(c, 1)},${size}`)).toBe('OK')
    expect(Buffer.from(ram.subarray(there, there + size)).toString('hex')).toBe(original)
    expect(c.resume('s')).toBe('T05thread:01;')
    expect(c.pc).toBe(pcOf(c, 2))
  })

  it('a breakpoint instruction of the guest’s own is the guest’s exception', () => {
    const c = new Client(own())
    // The debugger's is behind it; the guest's handler goes there.
    expect(c.ask(`Z0,${hex(c.subject.code + after)},1`)).toBe('OK')
    expect(c.resume('c')).toBe('T05thread:01;swbreak:;')
    expect(c.pc).toBe(BigInt(c.subject.code + after))
    expect(c.ask(`p${hex(counter)}`)?.slice(0, 2)).toBe('01')
  })

  it('a write under a breakpoint instruction takes effect when it is taken away', () => {
    const c = start()
    const size = breakpoint.length / 2
    const patch = '1f'.repeat(size)
    c.ask(`Z0,${place(c, 1)},${size}`)
    expect(c.ask(`M${place(c, 1)},${size}:${patch}`)).toBe('OK')
    expect(c.ask(`m${place(c, 1)},${size}`)).toBe(patch)
    expect(c.resume('c')).toBe('T05thread:01;swbreak:;')
    c.ask(`z0,${place(c, 1)},${size}`)
    expect(c.ask(`m${place(c, 1)},${size}`)).toBe(patch)
  })

  it('Z1 stops before its instruction', () => {
    const c = start()
    expect(c.ask(`Z1,${place(c, 4)},${before ? 4 : 1}`)).toBe('OK')
    expect(c.resume('vCont;c')).toBe('T05thread:01;hwbreak:;')
    expect(c.pc).toBe(pcOf(c, 4))
    expect(c.ask(`z1,${place(c, 4)},${before ? 4 : 1}`)).toBe('OK')
    expect(c.resume('s')).toBe('T05thread:01;')
  })

  it.each([
    ['Z2', 'watch', 2],
    ['Z4', 'awatch', 2],
  ])('%s stops at the store with the address', (packetName, name, n) => {
    const c = start()
    const data = hex(c.subject.data)
    expect(c.ask(`${packetName},${data},4`)).toBe('OK')
    expect(c.resume('c')).toBe(`T05thread:01;${name}:${data};`)
    expect(c.pc).toBe(pcOf(c, before ? n : n + 1))
  })

  it('Z3 stops at the load where hardware can, and is unsupported elsewhere', () => {
    const c = start()
    const data = hex(c.subject.data)
    if (!before) expect(c.ask(`Z3,${data},4`)).toBe('')
    else {
      expect(c.ask(`Z3,${data},4`)).toBe('OK')
      expect(c.resume('c')).toBe(`T05thread:01;rwatch:${data};`)
      expect(c.pc).toBe(pcOf(c, 3))
    }
  })

  it('there are as many hardware breakpoints as there are, and none that hardware cannot do', () => {
    const c = start()
    for (let i = 0; i < 4; i++) expect(c.ask(`Z2,${hex(c.subject.data + 8 * i)},8`)).toBe('OK')
    expect(c.ask(`Z2,${hex(c.subject.data + 64)},8`)).toBe('E01')
    expect(c.ask(`Z2,${hex(c.subject.data)},8`)).toBe('OK')
    expect(c.ask(`z2,${hex(c.subject.data)},8`)).toBe('OK')
    expect(c.ask(`Z2,${hex(c.subject.data + 66)},8`)).toBe('E01')
    expect(c.ask(`Z9,${hex(c.subject.data)},8`)).toBe('')
  })

  it('byte 3 stops a running guest, and does nothing to one that is stopped', () => {
    const c = start()
    c.raw('\x03')
    expect(c.stub.interrupted).toBe(false)
    expect(c.ask('c')).toBeUndefined()
    expect(c.stub.state).toBe('running')
    c.raw('\x03')
    expect(c.stub.interrupted).toBe(true)
    c.stub.stoppedByRequest()
    expect(c.stub.state).toBe('stopped')
    expect(c.raw('')).toContain('$T02thread:01;#')
    expect(c.ask('?')).toBe('T02thread:01;')
  })

  it('D takes breakpoints away and lets go; so does a connection that ends', () => {
    for (const leave of [(c: Client) => c.ask('D'), (c: Client) => c.stub.disconnected()]) {
      const c = start()
      const original = c.ask(`m${place(c, 0)},8`)
      c.ask(`Z0,${place(c, 1)},${breakpoint.length / 2}`)
      c.ask(`Z1,${place(c, 4)},4`)
      leave(c)
      expect(c.stub.state).toBe('detached')
      const { ram, ramBase } = c.subject.cpu
      const from = c.subject.code - ramBase
      expect(Buffer.from(ram.subarray(from, from + 8)).toString('hex')).toBe(original)
    }
  })

  it('k and vKill end the guest, and its end is told with its code', () => {
    const c = start()
    expect(c.ask('k')).toBeUndefined()
    expect(c.stub.state).toBe('killed')
    const other = start()
    expect(other.ask('vKill;1')).toBe('OK')
    expect(other.stub.state).toBe('killed')
    const third = start()
    third.ask('c')
    third.stub.exited(3)
    expect(third.raw('')).toContain('$W03#')
    expect(third.stub.state).toBe('detached')
  })

  it('what is not known is answered with nothing', () => {
    const c = start()
    for (const unknown of [
      'vMustReplyEmpty',
      'qOffsets',
      'jabc',
      'R0',
      '!',
      'qXfer:auxv:read::0,10',
      '',
    ])
      expect(c.ask(unknown), unknown).toBe('')
    expect(c.ask('vCont;x')).toBe('E01')
    expect(c.ask('Hg0')).toBe('OK')
    expect(c.ask('qC')).toBe('QC01')
    expect(c.ask('qfThreadInfo')).toBe('m01')
    expect(c.ask('qsThreadInfo')).toBe('l')
  })

  const seed = 5
  it(`any bytes are taken: nothing is thrown, seed ${seed}`, () => {
    const random = xorshift(seed)
    const c = start()
    const commands = [
      'g',
      'G',
      'p',
      'P',
      'm',
      'M',
      'X',
      'Z0,',
      'Z1,',
      'z2,',
      'vCont;',
      'q',
      'Q',
      'H',
      's',
      'c',
    ]
    const rounds = process.env['VFIO_EMU_LONG'] ? 20_000 : 400
    for (let i = 0; i < rounds; i++) {
      const noise = Array.from({ length: 1 + random(24) }, () =>
        String.fromCharCode(random(256)),
      ).join('')
      const number = () => hex(random(2 ** 32))
      const command = commands[random(commands.length)]!
      const half = random(2) === 0 ? `${command}${number()},${number()}` : `${command}${noise}`
      if (random(5) < 2) c.raw(noise)
      else c.ask(half)
      if (c.stub.state !== 'stopped') c.stub.stoppedByRequest()
    }
    // Whatever the noise left half read ends with the next packet.
    c.raw('$#00')
    expect(c.ask('qC')).toBe('QC01')
  })
})

describe('packets', () => {
  const read = (text: string) =>
    new PacketReader().read(Uint8Array.from(text, ch => ch.charCodeAt(0)))

  it('text with marks in it comes back as it was', () => {
    const text = 'a#b$c}d*e\x03\xff'
    expect(new PacketReader().read(packet(text))).toEqual([{ kind: 'packet', text }])
  })

  it('a wrong checksum is bad, and a packet that begins again counts from there', () => {
    expect(read('$g#00')).toEqual([{ kind: 'bad' }])
    expect(read('$g#zz')).toEqual([{ kind: 'bad' }])
    expect(read('$gar$g#67')).toEqual([{ kind: 'packet', text: 'g' }])
    expect(read('$gar#6$g#67')).toEqual([{ kind: 'bad' }, { kind: 'packet', text: 'g' }])
  })

  it('a packet longer than any may be is bad', () => {
    const kinds = read(`$${'a'.repeat(0x4100)}`).map(p => p.kind)
    expect(kinds).toEqual(['bad'])
  })

  it('acknowledgements and interrupts stand between packets', () => {
    expect(read('+-\x03$g#67').map(p => p.kind)).toEqual(['ack', 'nack', 'interrupt', 'packet'])
  })

  it('after QStartNoAckMode nothing is acknowledged, and - has the last packet sent again', () => {
    const c = new Client(x86Subject('90'))
    expect(c.raw('$qC#b4')[0]).toBe('+')
    expect(c.raw('-')).toBe('$QC01#f5')
    expect(c.raw('$qC#00')).toBe('-')
    expect(c.ask('QStartNoAckMode')).toBe('OK')
    expect(c.raw('$qC#b4')[0]).toBe('$')
  })
})

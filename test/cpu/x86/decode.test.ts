// Decoding: what has no row, what is too long, which prefixes count, and that no bytes at all upset it.

import { describe, expect, it } from 'vitest'
import { compile } from '../../../src/cpu/x86/code-cache.js'
import { decode, MAX_LENGTH } from '../../../src/cpu/x86/decode.js'
import { disassemble } from '../../../src/cpu/x86/disassemble.js'
import { ENCODINGS } from '../../../src/cpu/x86/encodings.js'
import { Random } from './support/random.js'

const bytes = (hex: string) =>
  Uint8Array.from(hex.split(' ').filter(Boolean), h => Number.parseInt(h, 16))

describe('what is not an instruction', () => {
  // biome-ignore format: table
  it.each([
    ['06', 'PUSH ES does not exist in 64-bit mode'],
    ['ce', 'INTO does not exist in 64-bit mode'],
    ['d6', 'SALC'],
    ['ea 00 00 00 00 00 00', 'JMP ptr16:32'],
    ['0f 04', 'an empty place in the map'],
    ['c5 f8 77', 'VEX'],
    ['62 f1 7c 48 28 c0', 'EVEX'],
    ['0f 10 00', 'SSE'],
    ['d9 c0', 'x87'],
    ['f0 90', 'LOCK on NOP'],
    ['f0 48 01 c3', 'LOCK on a register destination'],
    ['f0 48 39 03', 'LOCK on CMP'],
    ['f0 48 8b 03', 'LOCK on a load'],
    ['8d c0', 'LEA of a register'],
    ['0f c7 c8', 'CMPXCHG8B of a register'],
    ['0f 01 d0', 'XGETBV'],
    ['f2 0f 38 f0 c0', 'CRC32'],
    ['8f 08', 'POP with another digit'],
  ])('%s is #UD: %s', hex => {
    expect(decode(bytes(hex))).toBe('ud')
  })

  it('takes 15 bytes and refuses a sixteenth with #GP', () => {
    const most = bytes(`${'66 '.repeat(14)}90`)
    expect(decode(most)).toMatchObject({ length: 15 })
    expect(decode(bytes(`${'66 '.repeat(15)}90`))).toBe('gp')
    expect(decode(bytes(`${'2e '.repeat(11)}81 05 01 02 03 04 05 06 07 08`))).toBe('gp')
  })

  it('asks for more bytes only when there are fewer than fifteen', () => {
    expect(decode(bytes('48'))).toBe('short')
    expect(decode(bytes('48 b8 01 02 03'))).toBe('short')
    expect(decode(bytes(''))).toBe('short')
  })
})

// biome-ignore format: table
it.each([
  ['48 66 89 d8', 'mov ax,bx', 'REX before another prefix is ignored'],
  ['66 48 89 d8', 'mov rax,rbx', 'REX.W wins over 66'],
  ['65 2e 8b 03', 'mov eax,DWORD PTR gs:[rbx]', 'a null segment prefix does not cancel GS'],
  ['64 65 8b 03', 'mov eax,DWORD PTR gs:[rbx]', 'the last of FS and GS counts'],
  ['f3 90', 'pause', 'F3 90 is PAUSE'],
  ['41 90', 'xchg r8d,eax', 'REX.B makes 90 an exchange'],
  ['40 88 e0', 'mov al,spl', 'any REX replaces AH to BH'],
  ['88 e0', 'mov al,ah', 'without REX they are AH to BH'],
  ['66 f3 0f bc c1', 'tzcnt ax,cx', '66 gives the size beside a mandatory F3'],
  ['f2 f3 0f b8 c1', 'popcnt eax,ecx', 'the last of F2 and F3 is mandatory'],
  ['67 8d 04 08', 'lea eax,[eax+ecx*1]', '67 narrows the address'],
  ['42 8b 04 25 10 00 00 00', 'mov eax,DWORD PTR [r12*1+0x10]', 'REX.X makes index 4 mean R12'],
  ['66 e8 03 00 00 00', 'call 0x9', '66 does not shorten a near call'],
] as const)('%s is "%s": %s', (hex, text, _why) => {
  const code = bytes(hex)
  const found = disassemble(code)
  expect(found.text).toBe(text)
  expect(found.length).toBe(code.length)
})

it('never throws, and never takes more than it was given or than 15 bytes (60000 random strings, seed 11)', () => {
  const random = new Random(11)
  const buffer = new Uint8Array(16)
  const seen = new Set<string>()
  for (let i = 0; i < 60_000; i++) {
    for (let k = 0; k < 16; k++) buffer[k] = random.next()
    // Half of them begin like something: prefixes and the long maps are rare otherwise.
    if (i & 1) buffer.set([random.pick([0x66, 0xf2, 0xf3, 0x48, 0xf0, 0x65]), 0x0f])
    const length = random.below(17)
    const d = decode(buffer.subarray(0, length))
    if (typeof d === 'string') {
      seen.add(d)
      if (d === 'short') expect(length).toBeLessThan(MAX_LENGTH)
      continue
    }
    expect(d.length).toBeLessThanOrEqual(Math.min(length, MAX_LENGTH))
    expect(compile(d)).toBeInstanceOf(Array)
    seen.add(d.encoding.name)
  }
  expect(seen.size).toBeGreaterThan(150)
})

it('gives every row its own opcode, or a prefix or ModRM that tells it apart', () => {
  const keys = ENCODINGS.map(e => {
    const kinds = e.operands.map(o => o.kind + o.size).join(',')
    return [e.map, e.opcode, e.prefix, e.extension, e.modrm, e.modrm < 0 ? kinds : ''].join(' ')
  })
  expect(keys.filter((k, i) => keys.indexOf(k) !== i)).toEqual([])
})

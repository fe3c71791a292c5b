// Page faults and translation caching of the processor's MMU, seen from guest code.
import { describe, expect, it } from 'vitest'
import { AT, Guest } from '../kvm/guest.js'

const PAGE = 0x3_0000
const FRAME = BigInt(PAGE)
const P = 1n
const W = 2n
const U = 4n
const A = 0x20n
const D = 0x40n
const G = 0x100n
const XD = 1n << 63n

// mov $0x30000,%eax; mov (%rax),%bl; out %al,$0x10
const READ = 'b8 00 00 03 00 8a 18 e6 10'
// mov $0x30000,%eax; mov %bl,(%rax); out %al,$0x10
const WRITE = 'b8 00 00 03 00 88 18 e6 10'
// mov $0x30000,%eax; addb $1,(%rax); out %al,$0x10
const MODIFY = 'b8 00 00 03 00 80 00 01 e6 10'
// mov $0x30000,%eax; jmp *%rax
const FETCH = 'b8 00 00 03 00 ff e0'
/** LIDT-like implicit access: loading a selector reads the GDT. */
// mov $0x10,%eax; mov %eax,%ds; out %al,$0x10
const IMPLICIT = 'b8 10 00 00 00 8e d8 e6 10'

/** Error code of the fault that `code` meets, or 'no fault'. */
function fault(g: Guest, code: string): number | 'no fault' {
  g.code(code)
  // out %al,$0x10
  g.code('e6 10', PAGE)
  g.enter()
  if (g.run.u.io.port === 0x10) return 'no fault'
  expect(g.run.u.io.port).toBe(0x8e)
  expect(g.sregs().cr2).toBe(FRAME)
  return g.view.getUint32(Number(g.regs().rsp), true)
}

interface Situation {
  readonly entry: bigint
  readonly user?: boolean
  readonly cr0?: bigint
  readonly cr4?: bigint
  readonly efer?: bigint
  readonly flags?: bigint
}

function situation({
  entry,
  user,
  cr0 = 0n,
  cr4 = 0n,
  efer = 0xd01n,
  flags = 2n,
}: Situation): Guest {
  const g = new Guest()
  if (user) g.toUser()
  const base = g.sregs()
  g.setSregs(s => {
    Object.assign(s, { cr0: s.cr0 ^ cr0, cr4: s.cr4 | cr4, efer })
    if (user) Object.assign(s, { cs: base.cs, ss: base.ss, ds: base.ds, es: base.es })
  })
  // At CPL 3 IN and OUT need IOPL 3.
  g.setRegs({ rflags: user ? flags | 0x3000n : flags })
  g.map(PAGE, FRAME | entry)
  return g
}

const SMEP = 1n << 20n
const SMAP = 1n << 21n
const WP = 1n << 16n
const AC = 1n << 18n
const NO_NXE = 0x501n

describe('error codes', () => {
  // biome-ignore format: table
  const cases: [string, Situation, string, number | 'no fault'][] = [
    ['read of a page not present',                { entry: U | W },                                   READ,   0],
    ['write to a page not present',               { entry: U },                                       WRITE,  2],
    ['fetch from a page not present',             { entry: U },                                       FETCH,  0x10],
    ['the same without NXE and SMEP',             { entry: U, efer: NO_NXE },                         FETCH,  0],
    ['user read of a page not present',           { entry: U, user: true },                           READ,   4],
    ['user read of a supervisor page',            { entry: P | W, user: true },                       READ,   5],
    ['user write to a read-only page',            { entry: P | U, user: true },                       WRITE,  7],
    ['user read-modify-write of it',              { entry: P | U, user: true },                       MODIFY, 7],
    ['user fetch from an XD page',                { entry: P | U | XD, user: true },                  FETCH,  0x15],
    ['supervisor write to a read-only page, WP',  { entry: P | U },                                   WRITE,  3],
    ['the same without WP',                       { entry: P | U, cr0: WP },                          WRITE,  'no fault'],
    ['supervisor fetch from an XD page',          { entry: P | XD },                                  FETCH,  0x11],
    ['bit 63 without NXE is reserved',            { entry: P | XD, efer: NO_NXE },                    READ,   9],
    ['user access meets a reserved bit',          { entry: P | U | XD, efer: NO_NXE, user: true },    WRITE,  0xf],
    ['supervisor fetch from a user page, SMEP',   { entry: P | U, cr4: SMEP },                        FETCH,  0x11],
    ['the same without SMEP',                     { entry: P | U },                                   FETCH,  'no fault'],
    ['supervisor read of a user page, SMAP',      { entry: P | U, cr4: SMAP },                        READ,   1],
    ['supervisor write to a user page, SMAP',     { entry: P | W | U, cr4: SMAP },                    WRITE,  3],
    ['the same with AC set',                      { entry: P | W | U, cr4: SMAP, flags: AC | 2n },    WRITE,  'no fault'],
    ['user read of a user page under SMAP',       { entry: P | U, cr4: SMAP, user: true },            READ,   'no fault'],
  ]
  it.each(cases)('%s', (_, where, code, expected) => {
    const g = situation(where)
    // With SMEP or SMAP the rest of the guest's pages must be the supervisor's.
    if (where.cr4 !== undefined && !where.user) {
      for (let page = 0; page < 512; page++)
        if (page !== PAGE >> 12) g.map(page << 12, (BigInt(page) << 12n) | P | W)
    }
    expect(fault(g, code)).toBe(expected)
  })

  it('an implicit access to a user page faults under SMAP whatever AC is', () => {
    const g = situation({ entry: P | W, cr4: SMAP, flags: AC | 2n })
    g.map(AT.GDT, BigInt(AT.GDT) | P | W | U)
    g.code(IMPLICIT)
    for (let page = 2; page < 512; page++) g.map(page << 12, (BigInt(page) << 12n) | P | W)
    // The page fault's own delivery reads the GDT too: double fault, then shutdown.
    expect(g.enter()).toBe(8)
  })

  it('an access across pages faults on the second, and the first keeps its bytes', () => {
    const g = new Guest()
    g.map(PAGE + 0x1000, 0n)
    // mov $0x30ffc,%eax; movabs $-1,%rbx; mov %rbx,(%rax)
    g.code('b8 fc 0f 03 00 48 bb ff ff ff ff ff ff ff ff 48 89 18')
    expect(g.trap()).toMatchObject({ vector: 14, error: 2 })
    expect(g.sregs().cr2).toBe(BigInt(PAGE + 0x1000))
    expect(g.view.getUint32(PAGE + 0xffc, true)).toBe(0)
  })

  it('an instruction across pages faults with CR2 on the second', () => {
    const g = new Guest()
    g.map(PAGE + 0x1000, 0n)
    // mov $1,%eax
    g.code('b8 01 00 00 00', PAGE + 0xffe)
    g.setRegs({ rip: BigInt(PAGE + 0xffe) })
    expect(g.trap()).toMatchObject({ vector: 14, error: 0x10, rip: BigInt(PAGE + 0xffe) })
    expect(g.sregs().cr2).toBe(BigInt(PAGE + 0x1000))
  })
})

describe('accessed and dirty', () => {
  it.each([
    ['a read sets A', READ, A],
    ['a write sets A and D', WRITE, A | D],
    ['a write after a read sets D', READ.replace(/e6 10$/, '') + WRITE, A | D],
  ])('%s', (_, code, set) => {
    const g = new Guest()
    g.code(code)
    g.answer()
    expect(g.view.getBigUint64(g.entry(PAGE), true) & (A | D)).toBe(set)
  })

  it('a write refused by a read-only page leaves D clear', () => {
    const g = situation({ entry: P | U })
    fault(g, WRITE)
    expect(g.view.getBigUint64(g.entry(PAGE), true) & D).toBe(0n)
  })
})

describe('translations are kept exactly until they are invalidated', () => {
  const OTHER = 0x3_1000
  /** Reads the page, lets the owner change the entry, runs `between`, reads again. */
  function again(
    between: string,
    setup: { cr4?: bigint; entry?: bigint; before?: string } = {},
  ): number {
    const g = new Guest()
    const entry = FRAME | P | W | U | (setup.entry ?? 0n)
    g.setSregs(s => Object.assign(s, { cr4: s.cr4 | (setup.cr4 ?? 0n) }))
    g.map(PAGE, entry)
    g.ram[PAGE] = 1
    g.ram[OTHER] = 2
    // mov 0x30000,%al; out %al,$0x10
    const read = '8a 04 25 00 00 03 00 e6 10'
    g.code(`${setup.before ?? ''} ${read} ${between} ${read}`)
    expect(g.answer()).toBe(1)
    g.map(PAGE, (entry & 0xfffn) | BigInt(OTHER))
    return g.answer()
  }
  const PCIDE = 1n << 17n
  const PGE = 1n << 7n
  // mov %cr3,%rax; mov %rax,%cr3
  const MOV_CR3 = '0f 20 d8 0f 22 d8'
  // mov %cr3,%rax; bts $63,%rax; mov %rax,%cr3
  const KEEP_CR3 = '0f 20 d8 48 0f ba e8 3f 0f 22 d8'
  // mov %cr3,%rax; or $1,%rax; mov %rax,%cr3
  const PCID_1 = '0f 20 d8 48 83 c8 01 0f 22 d8'
  // mov %cr3,%rax; and $-2,%rax; bts $63,%rax; mov %rax,%cr3
  const PCID_0_KEEP = '0f 20 d8 48 83 e0 fe 48 0f ba e8 3f 0f 22 d8'
  // mov %cr3,%rax; and $-2,%rax; mov %rax,%cr3
  const PCID_0 = '0f 20 d8 48 83 e0 fe 0f 22 d8'
  // mov %cr4,%rax; xor $0x80,%rax; mov %rax,%cr4
  const TOGGLE_PGE = '0f 20 e0 48 35 80 00 00 00 0f 22 e0'
  // mov %cr0,%rax; xor $0x10000,%rax; mov %rax,%cr0
  const TOGGLE_WP = '0f 20 c0 48 35 00 00 01 00 0f 22 c0'
  /** INVPCID of a type, with a descriptor of zeros but for the address 0x30000. */
  const INVPCID = (type: number) =>
    `6a 00 48 81 04 24 00 00 03 00 6a 00 b8 ${type.toString(16).padStart(2, '0')} 00 00 00 66 0f 38 82 04 24 58 58`

  // biome-ignore format: table
  const cases: [string, string, Parameters<typeof again>[1], number][] = [
    ['nothing: the old one',                             '',                                 {},                           1],
    // invlpg 0x30008
    ['INVLPG of the page',                               '0f 01 3c 25 08 00 03 00',                {},                           2],
    // invlpg 0x31000
    ['INVLPG of the next page: the old one',             '0f 01 3c 25 00 10 03 00',                {},                           1],
    ['MOV CR3',                                          MOV_CR3,                            {},                           2],
    ['MOV CR3, global page, PGE: the old one',           MOV_CR3,                            { cr4: PGE, entry: G },       1],
    ['MOV CR3, G without PGE',                           MOV_CR3,                            { entry: G },                 2],
    // invlpg 0x30000
    ['INVLPG of a global page',                          '0f 01 3c 25 00 00 03 00',                { cr4: PGE, entry: G },       2],
    ['CR4.PGE, global page',                             TOGGLE_PGE,                         { cr4: PGE, entry: G },       2],
    ['CR0.WP',                                           TOGGLE_WP,                          {},                           2],
    ['MOV CR3 under PCIDE',                              MOV_CR3,                            { cr4: PCIDE },               2],
    ['MOV CR3 with bit 63: the old one',                 KEEP_CR3,                           { cr4: PCIDE },               1],
    ['another PCID and back with bit 63: the old one',   PCID_1 + PCID_0_KEEP,               { cr4: PCIDE },               1],
    ['another PCID and back without bit 63',             PCID_1 + PCID_0,                    { cr4: PCIDE },               2],
    ['another PCID stays: its own walk',                 PCID_1,                             { cr4: PCIDE },               2],
    ['another PCID, global page: the old one',           PCID_1,                             { cr4: PCIDE | PGE, entry: G }, 1],
    ['INVPCID 0, the page',                              INVPCID(0),                         {},                           2],
    ['INVPCID 0, global page: the old one',              INVPCID(0),                         { cr4: PGE, entry: G },       1],
    ['INVPCID 1',                                        INVPCID(1),                         {},                           2],
    ['INVPCID 1, global page: the old one',              INVPCID(1),                         { cr4: PGE, entry: G },       1],
    ['INVPCID 2, global page',                           INVPCID(2),                         { cr4: PGE, entry: G },       2],
    ['INVPCID 3',                                        INVPCID(3),                         {},                           2],
    ['INVPCID 3, global page: the old one',              INVPCID(3),                         { cr4: PGE, entry: G },       1],
  ]
  it.each(cases)('%s', (_, between, setup, expected) => {
    expect(again(between, setup)).toBe(expected)
  })

  it('INVLPG anywhere in a large page drops all of it', () => {
    const g = new Guest()
    const at = 0x20_0000
    g.ram[at] = 1
    g.ram[at + 0x2f000] = 1
    // mov 0x200000,%al; add 0x22f000,%al; out %al,$0x10; invlpg 0x3ff000; mov 0x200000,%al; add 0x22f000,%al; out %al,$0x10
    g.code(
      '8a 04 25 00 00 20 00 02 04 25 00 f0 22 00 e6 10 0f 01 3c 25 00 f0 3f 00 8a 04 25 00 00 20 00 02 04 25 00 f0 22 00 e6 10',
    )
    expect(g.answer()).toBe(2)
    g.view.setBigUint64(AT.PD + 8, 0x87n, true) // to address 0, where both bytes are zero
    g.ram[0] = 5
    expect(g.answer()).toBe(5)
  })
})

describe('5-level paging', () => {
  it('translates through PML5, with 57-bit canonical addresses', () => {
    const g = new Guest()
    g.view.setBigUint64(0xe000, BigInt(AT.PML4) | 7n, true)
    g.view.setBigUint64(0xe000 + 8 * 255, BigInt(AT.PML4) | 7n, true)
    g.setSregs(s => Object.assign(s, { cr3: 0xe000n, cr4: s.cr4 | (1n << 12n) }))
    g.ram[PAGE] = 7
    // movabs $0x00ff000000030000,%rax; mov (%rax),%al; out %al,$0x10; movabs $0x0100000000030000,%rax; mov (%rax),%al
    g.code('48 b8 00 00 03 00 00 00 ff 00 8a 00 e6 10 48 b8 00 00 03 00 00 00 00 01 8a 00')
    expect(g.answer()).toBe(7)
    expect(g.trap()).toMatchObject({ vector: 13, error: 0 })
  })
})

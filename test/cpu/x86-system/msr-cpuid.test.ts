// MSRs, CPUID and control registers as guest code meets them.
import { describe, expect, it } from 'vitest'
import { Guest } from '../kvm/guest.js'

// wrmsr; out %al,$0x10
const WRMSR = '0f 30 e6 10'
// rdmsr; out %eax,$0x10; mov %edx,%eax; out %eax,$0x10
const RDMSR = '0f 32 e7 10 89 d0 e7 10'

function write(g: Guest, index: number, value: bigint): 'written' | '#GP' {
  g.code(WRMSR)
  g.setRegs({
    rip: 0x1_0000n,
    rsp: 0xa000n,
    rcx: BigInt(index),
    rax: value & 0xffff_ffffn,
    rdx: value >> 32n,
  })
  g.enter()
  return g.run.u.io.port === 0x10 ? 'written' : '#GP'
}

function read(g: Guest, index: number): bigint {
  g.code(RDMSR)
  g.setRegs({ rip: 0x1_0000n, rcx: BigInt(index) })
  const low = BigInt(g.answer())
  return low | (BigInt(g.answer()) << 32n)
}

describe('MSRs', () => {
  // biome-ignore format: table
  const cases: [string, number, bigint, 'written' | '#GP'][] = [
    ['IA32_PASID, valid',                       0xd93,       0x8000_0005n,             'written'],
    ['IA32_PASID with bit 20',                  0xd93,       0x8010_0000n,             '#GP'],
    ['IA32_PASID with bit 32',                  0xd93,       1n << 32n,                '#GP'],
    ['IA32_XSS, which is absent',               0xda0,       0n,                       '#GP'],
    ['IA32_LSTAR',                              0xc000_0082, 0xffff_8000_0000_0000n,   'written'],
    ['IA32_LSTAR, not canonical',               0xc000_0082, 0x8000_0000_0000n,        '#GP'],
    ['IA32_FS_BASE, not canonical',             0xc000_0100, 1n << 63n,                '#GP'],
    ['IA32_KERNEL_GS_BASE',                     0xc000_0102, 0x1234_5678_9abcn,        'written'],
    ['IA32_FMASK',                              0xc000_0084, 0x4_7700n,                'written'],
    ['IA32_EFER as it is',                      0xc000_0080, 0xd01n,                   'written'],
    ['IA32_EFER with a reserved bit',           0xc000_0080, 0xd03n,                   '#GP'],
    ['IA32_EFER.LME cleared under paging',      0xc000_0080, 0xc01n,                   '#GP'],
    ['IA32_PAT',                                0x277,       0x0007_0406_0007_0401n,   'written'],
    ['IA32_PAT with type 2',                    0x277,       0x0007_0406_0007_0402n,   '#GP'],
    ['IA32_TSC_AUX',                            0xc000_0103, 7n,                       'written'],
    ['IA32_TSC_AUX above 32 bits',              0xc000_0103, 1n << 32n,                '#GP'],
    ['IA32_APIC_BASE as it is',                 0x1b,        0xfee0_0900n,             'written'],
    ['IA32_APIC_BASE with x2APIC',              0x1b,        0xfee0_0d00n,             '#GP'],
    ['an x2APIC register',                      0x80b,       0n,                       '#GP'],
  ]
  it.each(cases)('%s', (_, index, value, outcome) => {
    const g = new Guest()
    expect(write(g, index, value)).toBe(outcome)
    if (outcome === 'written') expect(read(g, index)).toBe(value)
  })

  it('writing the TSC moves it, and it goes on from there', () => {
    const g = new Guest()
    write(g, 0x10, 1n << 40n)
    const value = read(g, 0x10)
    expect(value).toBeGreaterThanOrEqual(1n << 40n)
    expect(value).toBeLessThan((1n << 40n) + 100n)
  })

  it('moving the APIC page moves its registers; disabling it takes them and the CPUID bit away', () => {
    const g = new Guest()
    expect(write(g, 0x1b, 0xd000_0900n)).toBe('written')
    // mov $0xd0000030,%ebx; mov (%rbx),%eax; out %eax,$0x10; mov $1,%eax; cpuid; mov %edx,%eax; out %eax,$0x10; mov $0xd0000030,%ebx; mov (%rbx),%eax
    g.code('bb 30 00 00 d0 8b 03 e7 10 b8 01 00 00 00 0f a2 89 d0 e7 10 bb 30 00 00 d0 8b 03')
    g.setRegs({ rip: 0x1_0000n })
    expect(g.answer()).toBe(0x5_0014)
    expect(g.answer() & (1 << 9)).toBe(1 << 9)
    expect(write(g, 0x1b, 0xd000_0100n)).toBe('written')
    // mov $1,%eax; cpuid; mov %edx,%eax; out %eax,$0x10; mov $0xd0000030,%ebx; mov (%rbx),%eax
    g.code('b8 01 00 00 00 0f a2 89 d0 e7 10 bb 30 00 00 d0 8b 03')
    g.setRegs({ rip: 0x1_0000n })
    expect(g.answer() & (1 << 9)).toBe(0)
    expect(g.enter()).toBe(6) // MMIO
  })
})

describe('CPUID', () => {
  // cpuid; out %eax,$0x10; mov %ebx,%eax; out %eax,$0x10; mov %ecx,%eax; out %eax,$0x10; mov %edx,%eax; out %eax,$0x10
  const CPUID = '0f a2 e7 10 89 d8 e7 10 89 c8 e7 10 89 d0 e7 10'
  function cpuid(leaf: number, subleaf = 0): number[] {
    const g = new Guest()
    g.code(CPUID)
    g.setRegs({ rax: BigInt(leaf), rcx: BigInt(subleaf) })
    return [g.answer(), g.answer(), g.answer(), g.answer()]
  }

  it('answers the vendor and the highest leaf', () => {
    expect(cpuid(0)).toEqual([7, 0x756e6547, 0x6c65746e, 0x49656e69])
  })

  it('a basic leaf out of range answers as the highest', () => {
    expect(cpuid(0x99)).toEqual(cpuid(7))
  })

  it('a missing leaf within range, and a missing subleaf, are zero', () => {
    expect(cpuid(5)).toEqual([0, 0, 0, 0])
    expect(cpuid(7, 1)).toEqual([0, 0, 0, 0])
  })

  it('tells the address widths', () => {
    expect(cpuid(0x8000_0008)[0]).toBe(52 | (57 << 8))
  })
})

describe('control registers', () => {
  // biome-ignore format: table
  const cases: [string, string, bigint, 'written' | '#GP'][] = [
    // mov %rax,%cr0; out %al,$0x10
    ['CR0 with NW but not CD',           '0f 22 c0 e6 10', 0xa001_0033n,       '#GP'],
    // mov %rax,%cr0; out %al,$0x10
    ['CR0 above 32 bits',                '0f 22 c0 e6 10', 0x1_8001_0033n,     '#GP'],
    // mov %rax,%cr0; out %al,$0x10
    ['CR0 without PE',                   '0f 22 c0 e6 10', 0x8001_0032n,       '#GP'],
    // mov %rax,%cr0; out %al,$0x10
    ['CR0.TS',                           '0f 22 c0 e6 10', 0x8001_003bn,       'written'],
    // mov %rax,%cr3; out %al,$0x10
    ['CR3 above the address width',      '0f 22 d8 e6 10', 1n << 52n,          '#GP'],
    // mov %rax,%cr3; out %al,$0x10
    ['CR3 bit 63 without PCIDE',         '0f 22 d8 e6 10', (1n << 63n) | 0x2000n, '#GP'],
    // mov %rax,%cr4; out %al,$0x10
    ['CR4 without PAE',                  '0f 22 e0 e6 10', 0n,                 '#GP'],
    // mov %rax,%cr4; out %al,$0x10
    ['CR4.LA57 in long mode',            '0f 22 e0 e6 10', 0x1020n,            '#GP'],
    // mov %rax,%cr4; out %al,$0x10
    ['CR4.VMXE',                         '0f 22 e0 e6 10', 0x2020n,            '#GP'],
    // mov %rax,%cr4; out %al,$0x10
    ['CR4.PCIDE with a PCID of zero',    '0f 22 e0 e6 10', 0x2_0020n,          'written'],
    // mov %rax,%cr4; out %al,$0x10
    ['CR4.PCIDE with CR3 bits set',      '0f 22 e0 e6 10', 0x2_0020n,          '#GP'],
    // mov %rax,%cr8; out %al,$0x10
    ['CR8 above 15',                     '44 0f 22 c0 e6 10', 16n,                '#GP'],
    // mov %rax,%cr8; out %al,$0x10
    ['CR8',                              '44 0f 22 c0 e6 10', 15n,                'written'],
  ]
  it.each(cases)('%s', (name, code, value, outcome) => {
    const g = new Guest()
    if (name.endsWith('CR3 bits set')) g.setSregs(s => Object.assign(s, { cr3: s.cr3 | 8n }))
    g.code(code)
    g.setRegs({ rax: value })
    g.enter()
    expect(g.run.u.io.port).toBe(outcome === 'written' ? 0x10 : 0x8d)
  })
})

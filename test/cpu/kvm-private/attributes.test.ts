// KVM_SET_MEMORY_ATTRIBUTES (D-16 to D-18), and the store behind it against one bit a page.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MemoryAttributes } from '../../../src/cpu/kvm/memory/attributes.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { errno, GPA, PAGE, PrivateGuest } from './guest.js'

const PRIVATE = BigInt(uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE)

describe('D-16: the call', () => {
  it('has the number of the kernel', () => {
    expect(uapi.KVM_SET_MEMORY_ATTRIBUTES).toBe(0x4020_aed2)
  })

  const good = { address: BigInt(GPA), size: 4096n, attributes: PRIVATE, flags: 0n }
  // biome-ignore format: table
  it.each([
    ['a page',                                  {},                                             ''],
    ['all pages but the last',                  { address: 0n, size: 2n ** 64n - 4096n },       ''],
    ['flags',                                   { flags: 1n },                                  'EINVAL'],
    ['the highest flag',                        { flags: 1n << 63n },                           'EINVAL'],
    ['READ',                                    { attributes: 1n },                             'EINVAL'],
    ['WRITE beside PRIVATE',                    { attributes: PRIVATE | 2n },                   'EINVAL'],
    ['the highest attribute',                   { attributes: 1n << 63n },                      'EINVAL'],
    ['size 0',                                  { size: 0n },                                   'EINVAL'],
    ['a range that wraps',                      { address: 2n ** 64n - 4096n, size: 8192n },    'EINVAL'],
    ['a range that ends at 2^64',               { address: 2n ** 64n - 4096n },                 'EINVAL'],
    ['an address inside a page',                { address: BigInt(GPA) + 1n },                  'EINVAL'],
    ['a size of no whole pages',                { size: 4097n },                                'EINVAL'],
  ] as [string, Partial<typeof good>, string][])('%s', (_, change, code) => {
    const g = new PrivateGuest()
    const call = uapi.kvm_memory_attributes({ ...good, ...change })
    expect(errno(() => g.sys.ioctl(g.vm, uapi.KVM_SET_MEMORY_ATTRIBUTES, call))).toBe(code)
  })

  it('EFAULT for a structure that is not there', () => {
    const g = new PrivateGuest()
    expect(errno(() => g.sys.ioctl(g.vm, uapi.KVM_SET_MEMORY_ATTRIBUTES, 0x1000))).toBe('EFAULT')
  })

  it('needs no slot, and a slot created later obeys it', () => {
    const g = new PrivateGuest()
    g.attributes(GPA, PAGE, true)
    const { shared } = g.memory(2 * PAGE)
    shared.bytes.fill(7)
    expect([g.peek(GPA), g.peek(GPA + PAGE)]).toEqual([0, 7])
  })

  it('setting what is so already changes nothing, not even mappings', () => {
    const g = new PrivateGuest()
    g.memory(PAGE)
    g.peek(GPA)
    const { sequence } = g.kvm.privateMemory!.invalidations
    g.attributes(GPA, PAGE, false)
    expect(g.mapped(GPA)).toBe('1S')
    g.attributes(GPA, PAGE, true)
    g.peek(GPA)
    g.attributes(GPA, PAGE, true)
    expect(g.mapped(GPA)).toBe('1P')
    expect(g.kvm.privateMemory!.invalidations.sequence).toBe(sequence + 1)
  })

  it('everything is shared at first', () => {
    const g = new PrivateGuest()
    expect(g.kvm.privateMemory!.attributes.all(0, 2 ** 52 - 1, false)).toBe(true)
  })
})

describe('D-17: what is supported', () => {
  it.each([
    ['the default type', uapi.KVM_X86_DEFAULT_VM, 0],
    ['the software-protected type', uapi.KVM_X86_SW_PROTECTED_VM, 8],
  ])('%s', (_, type, bits) => {
    const g = new PrivateGuest({ type })
    const check = (fd: number) =>
      g.sys.ioctl(fd, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_MEMORY_ATTRIBUTES)
    expect(check(g.vm)).toBe(bits)
    expect(check(g.sys.open('/dev/kvm'))).toBe(8)
    expect(errno(() => g.attributes(GPA, PAGE, true))).toBe(bits === 0 ? 'EINVAL' : '')
    // Shared is what every page is: nothing to support.
    expect(errno(() => g.attributes(GPA, PAGE, false))).toBe('')
  })

  it.each([
    [uapi.KVM_CAP_USER_MEMORY2, 1],
    [uapi.KVM_CAP_MEMORY_FAULT_INFO, 1],
    [uapi.KVM_CAP_GUEST_MEMFD, 1],
    [uapi.KVM_CAP_VM_TYPES, 0b11],
    [uapi.KVM_CAP_PRE_FAULT_MEMORY, 1],
    [uapi.KVM_CAP_GUEST_MEMFD_FLAGS, 0],
  ])('capability %i is %i, on /dev/kvm and on a VM', (cap, answer) => {
    const g = new PrivateGuest()
    for (const fd of [g.vm, g.sys.open('/dev/kvm')])
      expect(g.sys.ioctl(fd, uapi.KVM_CHECK_EXTENSION, cap)).toBe(answer)
  })

  it.each([2, 3, 4, 5, 31, 32, 33, 2 ** 32])('KVM_CREATE_VM refuses type %i', type => {
    const g = new PrivateGuest()
    expect(errno(() => g.sys.ioctl(g.sys.open('/dev/kvm'), uapi.KVM_CREATE_VM, type))).toBe(
      'EINVAL',
    )
  })
})

describe('D-18: all or nothing', () => {
  it('ENOMEM changes no page and no mapping', () => {
    const g = new PrivateGuest()
    g.memory(4 * PAGE)
    for (let i = 0; i < 4; i++) g.poke(GPA + i * PAGE, i)
    g.host.kernel.failures.failNth(1)
    expect(errno(() => g.attributes(GPA, 4 * PAGE, true))).toBe('ENOMEM')
    g.host.kernel.failures.disarm()
    expect(g.kvm.privateMemory!.attributes.ranges).toBe(0)
    expect([0, 1, 2, 3].map(i => g.mapped(GPA + i * PAGE))).toEqual(['1S', '1S', '1S', '1S'])
    expect([0, 1, 2, 3].map(i => g.peek(GPA + i * PAGE))).toEqual([0, 1, 2, 3])
  })
})

describe('the store', () => {
  const PAGES = 64
  const range = fc
    .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: PAGES }), fc.boolean())
    .map(([first, pages, kind]) => [first, Math.min(pages, PAGES - first), kind] as const)

  it('is one bit a page, in as few ranges as can be', () => {
    fc.assert(
      fc.property(fc.array(range, { maxLength: 40 }), range, (changes, [first, pages]) => {
        const store = new MemoryAttributes()
        const model = new Array<boolean>(PAGES).fill(false)
        for (const [from, count, kind] of changes) {
          store.set(from, count, kind)
          model.fill(kind, from, from + count)
        }
        expect(Array.from({ length: PAGES }, (_, i) => store.isPrivate(i))).toEqual(model)
        const runs = model.filter((p, i) => p && !model[i - 1]).length
        expect(store.ranges).toBe(runs)
        const part = model.slice(first, first + pages)
        expect(store.all(first, pages, true)).toBe(part.every(p => p))
        expect(store.all(first, pages, false)).toBe(part.every(p => !p))
        const listed = [...store.privateRanges(first, first + pages - 1)]
        const counted = listed.reduce((n, r) => n + r.last - r.first + 1, 0)
        expect(counted).toBe(part.filter(p => p).length)
      }),
      { seed: 12, numRuns: 300 },
    )
  })

  it('costs no more for 2^51 pages than for one', () => {
    const store = new MemoryAttributes()
    store.set(0, 2 ** 51, true)
    store.set(2 ** 40, 1, false)
    expect([store.isPrivate(2 ** 40), store.isPrivate(2 ** 40 + 1), store.ranges]).toEqual([
      false,
      true,
      2,
    ])
  })
})

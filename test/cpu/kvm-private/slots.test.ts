// KVM_SET_USER_MEMORY_REGION2 (D-24 to D-26): every refusal, and which of two comes first. Facts as Linux 7.2's
// selftest set_memory_region_test.c states them are marked (selftest).
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { errno, GPA, PAGE, PrivateGuest, type SlotInit } from './guest.js'

const { KVM_MEM_GUEST_MEMFD: FILE, KVM_MEM_LOG_DIRTY_PAGES: LOG, KVM_MEM_READONLY: READONLY } = uapi

const NO_FD = 0xffff_ffff
const CLOSED = 900
type Init = (g: PrivateGuest) => SlotInit

/** A guest with a file of four pages; slot 2 has the file's third and, in gpa, GPA + 0x10000. */
function prepared() {
  const g = new PrivateGuest()
  const memfd = g.createMemfd(4 * PAGE)
  g.slot2({ slot: 2, gpa: GPA + 0x1_0000, memfd, offset: BigInt(2 * PAGE) })
  return { g, memfd }
}

describe('D-24: the call', () => {
  it('has the number and size of the kernel, and EFAULT for what is not there', () => {
    expect(uapi.KVM_SET_USER_MEMORY_REGION2).toBe(0x40a0_ae49)
    expect(uapi.kvm_userspace_memory_region2.size).toBe(160)
    const g = new PrivateGuest()
    expect(errno(() => g.sys.ioctl(g.vm, uapi.KVM_SET_USER_MEMORY_REGION2, 0x1000))).toBe('EFAULT')
  })

  it('does what the old one does without the flag, whatever its new fields hold', () => {
    const g = new PrivateGuest()
    const shared = g.sys.mmap(PAGE)
    shared.bytes[0] = 5
    g.slot2({ user: shared.vaddr, flags: 0, memfd: CLOSED, offset: 1n })
    expect(g.peek(GPA)).toBe(5)
  })
})

describe('D-25: refusals', () => {
  // Bad in one way only, in the order in which the kernel looks.
  // biome-ignore format: table
  const rows: [string, Init, string][] = [
    ['logging with a file (selftest)',             () => ({ flags: FILE | LOG, memfd: CLOSED }),                    'EINVAL'],
    ['read-only with a file (selftest)',           () => ({ flags: FILE | READONLY, memfd: CLOSED }),               'EINVAL'],
    ['size not whole pages',                       () => ({ size: PAGE + 1, memfd: CLOSED }),                       'EINVAL'],
    ['address not whole pages',                    () => ({ gpa: GPA + 8, memfd: CLOSED }),                         'EINVAL'],
    ['user address not whole pages',               () => ({ user: 8n, memfd: CLOSED }),                             'EINVAL'],
    ['user address outside user space',            () => ({ user: 1n << 47n, memfd: CLOSED }),                      'EINVAL'],
    ['offset not whole pages (selftest)',          () => ({ offset: 1n, memfd: CLOSED }),                           'EINVAL'],
    ['offset that wraps',                          () => ({ offset: 2n ** 64n - 4096n, memfd: CLOSED }),            'EINVAL'],
    ['a slot that no user has',                    () => ({ slot: 32764, memfd: CLOSED }),                          'EINVAL'],
    ['the second address space',                   () => ({ slot: 0x1_0001, memfd: CLOSED }),                       'EINVAL'],
    ['an address past the guest\'s',               () => ({ gpa: 2 ** 52, memfd: CLOSED }),                         'EINVAL'],
    ['a slot to delete that is not there',         () => ({ size: 0, memfd: CLOSED }),                              'EINVAL'],
    ['a slot with a file, moved',                  () => ({ slot: 2, memfd: CLOSED }),                              'EINVAL'],
    ['a slot with a file, as it is',               () => ({ slot: 2, gpa: GPA + 0x1_0000, memfd: CLOSED, offset: BigInt(2 * PAGE) }), 'EINVAL'],
    ['a slot with a file, without it',             () => ({ slot: 2, gpa: GPA + 0x1_0000 }),                        'EINVAL'],
    ['a slot without a file, given one',           () => ({ slot: 0, gpa: 0, size: 0x40_0000, memfd: CLOSED }),     'EINVAL'],
    ['overlap in gpa, before the file is asked',   () => ({ gpa: GPA + 0x1_0000, memfd: CLOSED }),                  'EEXIST'],
    ['no descriptor',                              () => ({ memfd: NO_FD }),                                        'EBADF'],
    ['a closed descriptor',                        () => ({ memfd: CLOSED }),                                       'EBADF'],
    ['the descriptor of /dev/kvm (selftest)',      g => ({ memfd: g.sys.open('/dev/kvm') }),                        'EINVAL'],
    ['the VM\'s descriptor (selftest)',            g => ({ memfd: g.vm }),                                          'EINVAL'],
    ['an eventfd',                                 g => ({ memfd: g.sys.eventfd() }),                               'EINVAL'],
    ['past the end of the file',                   () => ({ size: 2 * PAGE, memfd: 3, offset: BigInt(3 * PAGE) }),  'EINVAL'],
    ['far past the end of the file (selftest)',    () => ({ memfd: 3, offset: 2n ** 63n - 4096n }),                 'EINVAL'],
    ['a part that is bound (selftest)',            () => ({ size: 3 * PAGE, memfd: 3 }),                            'EEXIST'],
    ['the other half of a part that is bound (selftest)', () => ({ size: 2 * PAGE, memfd: 3, offset: BigInt(2 * PAGE) }), 'EEXIST'],
  ]
  it.each(rows)('%s', (_, init, code) => {
    const { g, memfd } = prepared()
    const given = init(g)
    const slot = given.memfd === 3 ? { ...given, memfd } : given
    expect(errno(() => g.slot2(slot))).toBe(code)
    expect(g.kvm.slots.get(1)).toBeUndefined()
    expect(g.kvm.slots.get(2)?.memfd?.page).toBe(2)
  })

  it("another VM's file (selftest)", () => {
    const { g } = prepared()
    const kvm = g.sys.open('/dev/kvm')
    const vm = g.sys.ioctl(kvm, uapi.KVM_CREATE_VM, uapi.KVM_X86_SW_PROTECTED_VM)
    const memfd = g.sys.ioctl(
      vm,
      uapi.KVM_CREATE_GUEST_MEMFD,
      uapi.kvm_create_guest_memfd({ size: BigInt(PAGE) }),
    )
    expect(errno(() => g.slot2({ memfd }))).toBe('EINVAL')
  })

  it('the flag on a VM whose type has no private memory', () => {
    const g = new PrivateGuest({ type: uapi.KVM_X86_DEFAULT_VM })
    expect(errno(() => g.slot2({ memfd: CLOSED }))).toBe('EINVAL')
  })

  it('every unknown flag, and every flag but two in the old call (selftest)', () => {
    const { g, memfd } = prepared()
    for (let bit = 0; bit < 32; bit++) {
      const flags = (1 << bit) >>> 0
      if ((flags & (LOG | READONLY)) !== 0) continue
      const old = { slot: 7, flags, memory_size: 4096n, guest_phys_addr: BigInt(GPA) }
      expect(
        errno(() => g.slot(old)),
        `old, flag ${bit}`,
      ).toBe('EINVAL')
      if (flags === FILE) continue
      expect(
        errno(() => g.slot2({ slot: 7, flags, memfd })),
        `flag ${bit}`,
      ).toBe('EINVAL')
    }
  })

  it('ranges that overlap in gpa, wherever they do (selftest)', () => {
    const { g, memfd } = prepared()
    const at = GPA + 0x1_0000
    for (const gpa of [at - PAGE, at])
      expect(
        errno(() => g.slot2({ gpa, size: 2 * PAGE, memfd })),
        gpa.toString(16),
      ).toBe('EEXIST')
    expect(errno(() => g.slot2({ gpa: at - 2 * PAGE, size: 2 * PAGE, memfd }))).toBe('')
  })

  it('a deleted slot gives its part of the file back (selftest)', () => {
    const { g, memfd } = prepared()
    g.slot2({ slot: 2, size: 0, memfd: NO_FD })
    expect(errno(() => g.slot2({ size: 4 * PAGE, memfd }))).toBe('')
  })

  it('ENOMEM leaves neither slot nor binding', () => {
    const { g, memfd } = prepared()
    g.host.kernel.failures.failNth(1)
    expect(errno(() => g.slot2({ memfd }))).toBe('ENOMEM')
    g.host.kernel.failures.disarm()
    expect(errno(() => g.slot2({ memfd }))).toBe('')
  })
})

describe('D-26: a slot with a file', () => {
  it('may have a user address where nothing is: private pages work, shared ones are EFAULT', () => {
    const g = new PrivateGuest()
    const memfd = g.createMemfd(2 * PAGE)
    g.slot2({ size: 2 * PAGE, memfd, user: 0x1000_0000n })
    g.attributes(GPA, PAGE, true)
    g.poke(GPA, 8)
    expect(g.peek(GPA)).toBe(8)
    expect(g.peek(GPA + PAGE)).toBe('EFAULT')
  })

  it('shares a file with others, each a part of its own', () => {
    const g = new PrivateGuest()
    const memfd = g.createMemfd(3 * PAGE)
    for (const [slot, page] of [
      [1, 2],
      [2, 0],
      [3, 1],
    ] as const)
      g.slot2({ slot, gpa: GPA + slot * 0x10_0000, memfd, offset: BigInt(page * PAGE) })
    g.attributes(GPA, 0x40_0000, true)
    for (const slot of [1, 2, 3]) g.poke(GPA + slot * 0x10_0000, slot)
    for (const slot of [1, 2, 3]) expect(g.peek(GPA + slot * 0x10_0000)).toBe(slot)
    g.slot2({ slot: 1, size: 0 })
    g.slot2({ slot: 1, gpa: GPA + 0x50_0000, memfd, offset: BigInt(2 * PAGE) })
    g.attributes(GPA + 0x50_0000, PAGE, true)
    expect(g.peek(GPA + 0x50_0000)).toBe(1)
  })

  it('logs the pages of slots without a file, in a VM with private memory too', () => {
    const g = new PrivateGuest()
    const shared = g.sys.mmap(4 * PAGE)
    g.slot2({ flags: LOG, size: 4 * PAGE, user: shared.vaddr })
    const dirty = () => {
      const bitmap = g.sys.mmap(PAGE)
      const log = uapi.kvm_dirty_log({ slot: 1, dirty_bitmap: bitmap.vaddr })
      g.sys.ioctl(g.vm, uapi.KVM_GET_DIRTY_LOG, log)
      return bitmap.bytes[0]
    }
    g.poke(GPA + PAGE, 1)
    g.poke(GPA + 3 * PAGE, 1)
    g.peek(GPA)
    expect(dirty()).toBe(0b1010)
    g.poke(GPA, 1)
    g.attributes(GPA, PAGE, true)
    expect([dirty(), dirty()]).toEqual([1, 0])
  })

  it('without a file may be read-only: loads work, stores are MMIO', () => {
    const g = new PrivateGuest()
    const shared = g.sys.mmap(PAGE)
    g.slot2({ flags: READONLY, user: shared.vaddr })
    expect(g.peek(GPA)).toBe(0)
    expect(g.poke(GPA, 1)).toBe('MMIO')
    g.attributes(GPA, PAGE, true)
    expect(g.poke(GPA, 1)).toMatch(/^fault 8/)
  })
})

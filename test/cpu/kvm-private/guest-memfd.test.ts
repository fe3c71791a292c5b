// The file (D-19 to D-23), as Linux 7.2's selftests guest_memfd_test.c and set_memory_region_test.c state it.
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { ConfidentialPages } from '../../../src/mem/confidential.js'
import { O_RDWR } from '../../../src/sys/open-file.js'
import { ALLOCATE, errno, GPA, PAGE, PrivateGuest, PUNCH } from './guest.js'

const NEW = { memfd: { edition: 'mmap' as const } }
const MMAP = BigInt(uapi.GUEST_MEMFD_FLAG_MMAP)
const SHARED = BigInt(uapi.GUEST_MEMFD_FLAG_INIT_SHARED)
const DEFAULT = { ...NEW, type: uapi.KVM_X86_DEFAULT_VM }

describe('D-19: KVM_CREATE_GUEST_MEMFD', () => {
  it.each([
    ['size 0', 0n],
    ['a negative size', -4096n],
    ['the most negative size', -(2n ** 63n)],
    ['a size of 1', 1n],
    ['a size of a page less one', 4095n],
    ['a size of a page and one', 4097n],
  ])('EINVAL for %s', (_, size) => {
    expect(errno(() => new PrivateGuest().createMemfd(BigInt.asUintN(64, size)))).toBe('EINVAL')
  })

  it('EINVAL for every size below a page', () => {
    const g = new PrivateGuest()
    for (let size = 1; size < PAGE; size += 7)
      expect(errno(() => g.createMemfd(size))).toBe('EINVAL')
  })

  it('EINVAL for each unknown flag; flags are looked at before the size', () => {
    const g = new PrivateGuest()
    for (let bit = 0n; bit < 64n; bit++)
      expect(
        errno(() => g.createMemfd(PAGE, 1n << bit)),
        `flag ${bit}`,
      ).toBe('EINVAL')
  })

  it('EFAULT for a structure that is not there, EMFILE when no descriptor is free', () => {
    const g = new PrivateGuest()
    const call = (arg: number) => g.sys.ioctl(g.vm, uapi.KVM_CREATE_GUEST_MEMFD, arg)
    expect(errno(() => call(0x1000))).toBe('EFAULT')
    g.sys.process.fds.limit = g.sys.process.fds.count
    expect(errno(() => g.createMemfd(PAGE))).toBe('EMFILE')
  })

  it('works on a VM whose type has no private memory, where no slot takes the file and the capability is 0', () => {
    const g = new PrivateGuest({ type: uapi.KVM_X86_DEFAULT_VM })
    const used = g.host.frames.used
    const memfd = g.createMemfd(PAGE)
    g.sys.fallocate(memfd, ALLOCATE, 0, PAGE)
    expect(errno(() => g.slot2({ memfd }))).toBe('EINVAL')
    const cap = (fd: number) => g.sys.ioctl(fd, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_GUEST_MEMFD)
    expect([cap(g.vm), cap(g.sys.open('/dev/kvm'))]).toEqual([0, 1])
    g.sys.fallocate(memfd, PUNCH, 0, PAGE)
    expect(g.host.frames.used).toBe(used)
    g.sys.close(g.vm)
    expect(g.host.kvm.vms.size).toBe(1)
    g.sys.close(memfd)
    g.sys.exit()
    expect(g.host.kvm.vms.size).toBe(0)
  })

  it('gives each file an inode of its own and keeps sizes apart', () => {
    const g = new PrivateGuest()
    const [one, two] = [g.createMemfd(PAGE), g.createMemfd(2 * PAGE)]
    const [a, b] = [g.sys.fstat(one), g.sys.fstat(two)]
    expect([a.size, b.size, g.sys.fstat(one).size]).toEqual([PAGE, 2 * PAGE, PAGE])
    expect(a.inode).not.toBe(b.inode)
    expect(g.sys.fstat(g.sys.dup(one)).inode).toBe(a.inode)
  })

  it('may be larger than memory: pages come when they are touched', () => {
    const g = new PrivateGuest()
    const used = g.host.frames.used
    const fd = g.createMemfd(1n << 62n)
    expect(g.sys.fstat(fd).size).toBe(2 ** 62)
    expect(g.host.frames.used).toBe(used)
  })
})

describe('D-20: as a file', () => {
  const four = new Uint8Array(4)
  it.each([
    ['read', 'EINVAL', (g: PrivateGuest, fd: number) => g.sys.read(fd, 4)],
    ['write', 'EINVAL', (g: PrivateGuest, fd: number) => g.sys.write(fd, four)],
    ['pread', 'ESPIPE', (g: PrivateGuest, fd: number) => g.sys.pread(fd, 4, 0)],
    ['pwrite', 'ESPIPE', (g: PrivateGuest, fd: number) => g.sys.pwrite(fd, four, 0)],
    [
      'mmap of a page',
      'ENODEV',
      (g: PrivateGuest, fd: number) => g.sys.mmap({ fd, offset: 0, length: PAGE }),
    ],
    [
      'mmap of all',
      'ENODEV',
      (g: PrivateGuest, fd: number) => g.sys.mmap({ fd, offset: 0, length: 4 * PAGE }),
    ],
    ['growing', 'EINVAL', (g: PrivateGuest, fd: number) => g.sys.ftruncate(fd, 8 * PAGE)],
    ['shrinking', 'EINVAL', (g: PrivateGuest, fd: number) => g.sys.ftruncate(fd, 0)],
    ['an ioctl', 'ENOTTY', (g: PrivateGuest, fd: number) => g.sys.ioctl(fd, uapi.KVM_RUN)],
  ])('%s is %s', (_, code, call) => {
    const g = new PrivateGuest()
    const fd = g.createMemfd(4 * PAGE)
    expect(errno(() => call(g, fd))).toBe(code)
  })

  it('fstat tells its size and the page as block size', () => {
    const g = new PrivateGuest()
    expect(g.sys.fstat(g.createMemfd(4 * PAGE))).toMatchObject({ size: 4 * PAGE, blockSize: PAGE })
  })
})

describe('D-21: fallocate', () => {
  const P = PAGE
  // biome-ignore format: table
  it.each<[string, number, bigint | number, bigint | number, string]>([
    ['all of it',                                      ALLOCATE, 0,        4 * P,    ''],
    ['a page at the end of the file',                  ALLOCATE, 4 * P,    P,        'EINVAL'],
    ['a page after the end of the file',               ALLOCATE, 5 * P,    P,        'EINVAL'],
    ['a range that reaches past the end',              ALLOCATE, 3 * P,    2 * P,    'EINVAL'],
    ['a hole from inside a page',                      PUNCH,    P - 1,    P,        'EINVAL'],
    ['a hole at the end of the file',                  PUNCH,    4 * P,    P,        ''],
    ['a hole after the end of the file',               PUNCH,    5 * P,    P,        ''],
    ['a hole of a page less one',                      PUNCH,    P,        P - 1,    'EINVAL'],
    ['a hole of a page',                               PUNCH,    P,        P,        ''],
    ['a hole that reaches past the end',               PUNCH,    3 * P,    9 * P,    ''],
    ['a negative offset, before the file is asked',    PUNCH,    -4096,    P,        'EINVAL'],
    ['a negative length',                              PUNCH,    0,        -4096,    'EINVAL'],
    ['no length, in a mode that the file refuses',     0,        0,        0,        'EINVAL'],
    ['without KEEP_SIZE',                              0,        0,        P,        'EOPNOTSUPP'],
    ['without KEEP_SIZE, unaligned: the mode first',   0,        1,        1,        'EOPNOTSUPP'],
    ['a hole without KEEP_SIZE',                       2,        0,        P,        'EOPNOTSUPP'],
    ['ZERO_RANGE',                                     1 | 16,   0,        P,        'EOPNOTSUPP'],
    ['UNSHARE_RANGE',                                  1 | 64,   0,        P,        'EOPNOTSUPP'],
    ['COLLAPSE_RANGE with KEEP_SIZE',                  1 | 8,    0,        P,        'EOPNOTSUPP'],
    ['a hole and zeroes at once',                      1 | 2 | 16, 0,      P,        'EOPNOTSUPP'],
    ['an unknown mode',                                1 | 0x400, 0,       P,        'EOPNOTSUPP'],
    ['past 2^63',                                      ALLOCATE, 2n ** 63n - 4096n, 8192, 'EFBIG'],
  ])('of %s', (_, mode, offset, length, code) => {
    const g = new PrivateGuest()
    const fd = g.createMemfd(4 * PAGE)
    expect(errno(() => g.sys.fallocate(fd, mode, offset, length))).toBe(code)
  })

  it.each([
    [0, 1],
    [0, P - 1],
    [0, P + 1],
    [1, 1],
    [1, P - 1],
    [1, P],
    [1, P + 1],
    [P, 1],
    [P, P - 1],
    [P, P + 1],
  ])('EINVAL for a hole of %i + %i bytes', (offset, length) => {
    const g = new PrivateGuest()
    const fd = g.createMemfd(4 * PAGE)
    expect(errno(() => g.sys.fallocate(fd, PUNCH, offset, length))).toBe('EINVAL')
  })

  it('ENODEV for what is no regular file, EBADF for what is not open', () => {
    const g = new PrivateGuest()
    expect(errno(() => g.sys.fallocate(g.vm, PUNCH, 0, P))).toBe('ENODEV')
    expect(errno(() => g.sys.fallocate(99, PUNCH, 0, P))).toBe('EBADF')
    expect(errno(() => g.sys.ftruncate(g.vm, 0))).toBe('EINVAL')
    expect(g.sys.fstat(g.vm)).toMatchObject({ size: 0 })
  })

  it('allocates frames of the host, a hole gives them back, zeroed', () => {
    const g = new PrivateGuest()
    const { frames } = g.host
    const used = frames.used
    const { memfd } = g.memory(4 * PAGE)
    const shared = 4
    g.sys.fallocate(memfd, ALLOCATE, 0, 4 * PAGE)
    expect(frames.used - used).toBe(4 + shared)
    g.attributes(GPA, 4 * PAGE, true)
    g.poke(GPA, 0x5a)
    const pages = ConfidentialPages.of(g.host.memory)
    const own = Array.from({ length: frames.total }, (_, i) => i).filter(
      i => pages.state(i)?.kind === 'private',
    )
    const holds = () => own.some(i => frames.bytes(i * PAGE)[0] === 0x5a)
    expect(holds()).toBe(true)
    g.sys.fallocate(memfd, PUNCH, 0, 4 * PAGE)
    expect(frames.used - used).toBe(shared)
    expect(g.mapped(GPA)).toBeUndefined()
    expect(holds()).toBe(false)
  })

  it('punched, a page reads as zero at the next fault, its neighbours as before', () => {
    const g = new PrivateGuest()
    const { memfd } = g.memory(3 * PAGE)
    g.attributes(GPA, 3 * PAGE, true)
    for (let i = 0; i < 3; i++) g.poke(GPA + i * PAGE, 0x10 + i)
    g.sys.fallocate(memfd, PUNCH, PAGE, PAGE)
    expect([0, 1, 2].map(i => g.peek(GPA + i * PAGE))).toEqual([0x10, 0, 0x12])
  })

  it('ENOMEM when the host has no frames left', () => {
    const g = new PrivateGuest()
    const fd = g.createMemfd(64 << 20)
    expect(errno(() => g.sys.fallocate(fd, ALLOCATE, 0, 64 << 20))).toBe('ENOMEM')
    g.sys.fallocate(fd, PUNCH, 0, 64 << 20)
    expect(errno(() => g.sys.fallocate(fd, ALLOCATE, 0, PAGE))).toBe('')
  })
})

describe('D-22: later flags', () => {
  it('are told by KVM_CAP_GUEST_MEMFD_FLAGS, and every other is EINVAL', () => {
    for (const [options, bits] of [
      [{}, 0n],
      [NEW, MMAP],
      [DEFAULT, MMAP | SHARED],
    ] as const) {
      const g = new PrivateGuest(options)
      expect(g.sys.ioctl(g.vm, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_GUEST_MEMFD_FLAGS)).toBe(
        Number(bits),
      )
      for (let bit = 1n; bit < 1n << 8n; bit <<= 1n)
        expect(
          errno(() => g.createMemfd(PAGE, bit)),
          `flag ${bit}`,
        ).toBe(bits & bit ? '' : 'EINVAL')
    }
    for (const [options, bits] of [
      [{}, 0n],
      [DEFAULT, MMAP | SHARED],
    ] as const) {
      const { sys } = new PrivateGuest(options)
      const answer = sys.ioctl(sys.open('/dev/kvm'), uapi.KVM_CHECK_EXTENSION, 244)
      expect(answer, 'on /dev/kvm').toBe(Number(bits))
    }
  })

  it('MMAP with INIT_SHARED: user space maps what the guest has', () => {
    const g = new PrivateGuest(DEFAULT)
    const fd = g.createMemfd(4 * PAGE, MMAP | SHARED)
    const view = g.sys.mmap({ fd, offset: 0, length: 4 * PAGE }).bytes
    view.fill(0xaa)
    g.slot2({ size: 4 * PAGE, memfd: fd })
    expect(g.peek(GPA + PAGE)).toBe(0xaa)
    g.poke(GPA + PAGE, 0x21)
    expect(view[PAGE]).toBe(0x21)
    g.sys.fallocate(fd, PUNCH, 0, PAGE)
    expect([view[0], view[PAGE]]).toEqual([0, 0x21])
    expect(view.subarray(0, PAGE).every(b => b === 0)).toBe(true)
    const second = g.sys.mmap({ fd, offset: PAGE, length: PAGE })
    expect(second.bytes[0]).toBe(0x21)
  })

  it('a mapping keeps the file, and its pages, when the descriptor is closed', () => {
    const g = new PrivateGuest(DEFAULT)
    const fd = g.createMemfd(PAGE, MMAP | SHARED)
    const map = g.sys.mmap({ fd, offset: 0, length: PAGE })
    g.slot2({ memfd: fd })
    g.sys.close(fd)
    map.bytes[0] = 7
    expect(g.peek(GPA)).toBe(7)
    g.sys.munmap(map.vaddr, PAGE)
    expect(g.peek(GPA)).toBe(`fault 0 ${GPA.toString(16)}+4096`)
  })

  it('EINVAL for a private mapping (MAP_PRIVATE)', () => {
    const g = new PrivateGuest(DEFAULT)
    for (const flags of [MMAP, MMAP | SHARED]) {
      const fd = g.createMemfd(PAGE, flags)
      const map = () => g.sys.mmap({ fd, offset: 0, length: PAGE, copyOnWrite: true })
      expect(errno(map)).toBe('EINVAL')
    }
  })

  it('SIGBUS past the end of the file; the pages before it are there', () => {
    const g = new PrivateGuest(DEFAULT)
    const fd = g.createMemfd(4 * PAGE, MMAP | SHARED)
    const map = g.sys.mmap({ fd, offset: 0, length: 16 * PAGE })
    const { memory } = g.sys.process
    const at = Number(map.vaddr)
    expect(memory.copyOut(at, new Uint8Array(4 * PAGE).fill(1))).toBe(true)
    expect(memory.copyOut(at + 4 * PAGE, new Uint8Array(1))).toBe(false)
    expect(memory.copyIn(at + 4 * PAGE - 1, new Uint8Array(2))).toBe(false)
    expect(memory.pin(at / PAGE + 4, false)).toBe(-1)
    expect(map.bytes.length).toBe(4 * PAGE)
    g.sys.munmap(map.vaddr, 16 * PAGE)
    expect(memory.copyIn(at, new Uint8Array(1))).toBe(false)
  })

  it('MMAP alone: mapped, and every access is SIGBUS', () => {
    const g = new PrivateGuest(NEW)
    const fd = g.createMemfd(PAGE, MMAP)
    const map = g.sys.mmap({ fd, offset: 0, length: PAGE })
    expect(() => map.bytes).toThrow('SIGBUS')
    expect(g.sys.process.memory.copyIn(Number(map.vaddr), new Uint8Array(1))).toBe(false)
  })
})

describe('D-23: the file holds the VM, and nothing holds the file', () => {
  it('closed, its slots live on without it: private faults exit with EFAULT, shared memory stays', () => {
    const g = new PrivateGuest()
    const { shared, memfd } = g.memory(2 * PAGE)
    shared.bytes[PAGE] = 9
    g.attributes(GPA, PAGE, true)
    g.poke(GPA, 3)
    const used = g.host.frames.used
    g.sys.close(memfd)
    expect(g.host.frames.used).toBe(used - 1)
    expect(g.peek(GPA)).toBe(`fault 8 ${GPA.toString(16)}+4096`)
    expect(g.peek(GPA + PAGE)).toBe(9)
    g.slot2({ size: 0 })
    expect(g.peek(GPA + PAGE)).toBe('MMIO')
  })

  it('a duplicate descriptor keeps it', () => {
    const g = new PrivateGuest()
    const { memfd } = g.memory(PAGE)
    g.attributes(GPA, PAGE, true)
    g.poke(GPA, 3)
    g.sys.dup(memfd)
    g.sys.close(memfd)
    expect(g.peek(GPA)).toBe(3)
  })

  it('the VM lives until its last file is closed; then allocating and punching still work before that', () => {
    const g = new PrivateGuest()
    const { memfd } = g.memory(4 * PAGE)
    const vms = g.host.kvm.vms
    g.sys.close(g.vcpu)
    g.sys.close(g.vm)
    expect(vms.size).toBe(1)
    g.sys.fallocate(memfd, PUNCH, 0, 4 * PAGE)
    g.sys.fallocate(memfd, ALLOCATE, 0, 4 * PAGE)
    g.sys.close(memfd)
    g.sys.exit()
    expect(vms.size).toBe(0)
  })

  it('is not opened for anything but both', () => {
    const g = new PrivateGuest()
    expect(g.sys.process.fds.description(g.createMemfd(PAGE), 'test').flags).toBe(O_RDWR)
  })
})

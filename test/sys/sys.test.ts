import { beforeEach, describe, expect, it } from 'vitest'
import { ErrnoError } from '../../src/base/errno.js'
import { struct } from '../../src/base/struct.js'
import type { MmapBacking } from '../../src/mem/vma.js'
import { PROT_READ } from '../../src/mem/vma.js'
import type { Kernel } from '../../src/sys/kernel.js'
import { O_RDONLY, O_RDWR, O_WRONLY, type OpenFile } from '../../src/sys/open-file.js'
import { Sys, s32 } from '../../src/sys/sys.js'
import { aKernel, outcome } from './a-kernel.js'

const thing = struct('struct thing', { argsz: 'u32', flags: 'u32', value: 'u64' })

describe('Sys', () => {
  let kernel: Kernel
  let sys: Sys

  beforeEach(() => {
    kernel = aKernel()
    sys = new Sys(kernel.spawn())
  })

  const file = (parts: Partial<OpenFile>, flags?: number): number => {
    const path = `/dev/${kernel.nodes.paths.length}`
    kernel.nodes.register(path, () => ({ kind: 'test', ...parts }))
    return sys.open(path, flags)
  }

  describe('open and close', () => {
    it('finds a node by its path, a prefix by its longest', () => {
      const seen: string[] = []
      const node = (name: string) => (_: unknown, path: string) => {
        seen.push(`${name} ${path}`)
        return { kind: name }
      }
      kernel.nodes.register('/dev/vfio/', node('groups'))
      kernel.nodes.register('/dev/vfio/vfio', node('container'))
      kernel.nodes.register('/dev/', node('any'))
      for (const path of ['/dev/vfio/vfio', '/dev/vfio/12', '/dev/x', '/dev/vfio/a/b']) {
        sys.open(path)
      }
      expect(seen).toEqual([
        'container /dev/vfio/vfio',
        'groups /dev/vfio/12',
        'any /dev/x',
        'groups /dev/vfio/a/b',
      ])
    })

    it.each([
      ['/dev/null', 'open ENOENT'],
      ['/dev/kvm/x', 'open ENOTDIR'],
      ['/dev/kvm/', 'open ENOTDIR'],
      ['/dev/kvm/a/b', 'open ENOTDIR'],
      ['dev/kvm', 'open ENOENT'],
      ['', 'open ENOENT'],
      ['/', 'open ENOENT'],
    ])('open %o is %s', (path, expected) => {
      kernel.nodes.register('/dev/kvm', () => ({ kind: 'kvm' }))
      expect(outcome(() => sys.open(path))).toBe(expected)
      expect(sys.process.fds.count).toBe(0)
    })

    it('passes on what the driver refuses', () => {
      kernel.nodes.register('/dev/busy', () => {
        throw new ErrnoError('EBUSY', 'in use', 'open')
      })
      expect(outcome(() => sys.open('/dev/busy'))).toBe('open EBUSY')
      expect(sys.process.fds.count).toBe(0)
    })

    it('refuses a path that is taken or not absolute, and frees one that is unregistered', () => {
      const remove = kernel.nodes.register('/dev/a', () => ({ kind: 'a' }))
      expect(() => kernel.nodes.register('/dev/a', () => ({ kind: 'b' }))).toThrow(/already/)
      expect(() => kernel.nodes.register('dev', () => ({ kind: 'b' }))).toThrow(/absolute/)
      remove()
      expect(outcome(() => sys.open('/dev/a'))).toBe('open ENOENT')
      kernel.nodes.register('/dev/a', () => ({ kind: 'b' }))
      remove()
      expect(kernel.nodes.paths).toEqual(['/dev/a'])
    })

    it('hands out the lowest free descriptor', () => {
      const fds = [file({}), file({}), file({})]
      expect(fds).toEqual([0, 1, 2])
      sys.close(1)
      expect([file({}), file({})]).toEqual([1, 3])
      expect([...sys.process.fds.entries()].map(e => e.fd)).toEqual([0, 1, 2, 3])
    })

    it('refuses the descriptor after the last: EMFILE, before the driver is asked', () => {
      sys.process.fds.limit = 2
      file({})
      const fd = file({})
      let opened = 0
      kernel.nodes.register('/dev/more', () => ({ kind: `more ${opened++}` }))
      expect(outcome(() => sys.open('/dev/more'))).toBe('open EMFILE')
      expect(outcome(() => sys.dup(fd))).toBe('dup EMFILE')
      expect(outcome(() => sys.eventfd())).toBe('eventfd EMFILE')
      expect(outcome(() => sys.process.fds.reserve())).toBe('ioctl EMFILE')
      expect(opened).toBe(0)
      sys.close(fd)
      expect(sys.open('/dev/more')).toBe(fd)
    })

    it.each([-1, 7, 1.5, Number.NaN])('answers EBADF for descriptor %s', fd => {
      file({ ioctl: () => 0 })
      expect(
        [
          () => sys.close(fd),
          () => sys.dup(fd),
          () => sys.ioctl(fd, 0, thing()),
          () => sys.read(fd, 1),
          () => sys.write(fd, new Uint8Array(1)),
          () => sys.pread(fd, 1, 0),
          () => sys.pwrite(fd, new Uint8Array(1), 0),
          () => sys.mmap({ fd, offset: 0, length: 4096 }),
          () => sys.readable(fd),
        ].map(outcome),
      ).toEqual([
        'close EBADF',
        'dup EBADF',
        'ioctl EBADF',
        'read EBADF',
        'write EBADF',
        'pread EBADF',
        'pwrite EBADF',
        'mmap EBADF',
        'poll EBADF',
      ])
    })

    it('dup shares the file and its position', () => {
      let released = 0
      const fd = file({
        pread: (into, offset) => {
          into.fill(offset)
          return into.length
        },
        release: () => released++,
      })
      const twin = sys.dup(fd)
      sys.read(fd, 3)
      expect([...sys.read(twin, 2)]).toEqual([3, 3])
      sys.close(fd)
      expect(released).toBe(0)
      expect([...sys.read(twin, 1)]).toEqual([5])
      sys.close(twin)
      expect(released).toBe(1)
    })
  })

  describe('ioctl', () => {
    const seen: unknown[] = []
    const noting = (act: NonNullable<OpenFile['ioctl']>) => file({ ioctl: act })

    it.each([
      [5, 5],
      [0, 0],
      [-1, 2 ** 64],
      [0x7fff_0000_1000n, 0x7fff_0000_1000],
      [-1n, 2 ** 64],
    ])('passes the plain argument %s as it is', (arg, expected) => {
      const fd = noting((cmd, got) => {
        seen.push([cmd, got])
        return 7
      })
      seen.length = 0
      expect(sys.ioctl(fd, -2, arg)).toBe(7)
      expect(seen).toEqual([[0xffff_fffe, expected]])
    })

    it('passes 0 when there is no argument', () => {
      expect(
        sys.ioctl(
          noting((_, arg) => arg),
          1,
        ),
      ).toBe(0)
    })

    it('lends a struct to the kernel and reads it back', () => {
      const fd = noting((_cmd, arg, caller) => {
        const bytes = new Uint8Array(16)
        if (!caller.memory.copyIn(arg, bytes)) return -1
        const v = thing.at(bytes)
        v.value += BigInt(v.argsz + v.flags)
        return caller.memory.copyOut(arg, bytes) ? 0 : -1
      })
      const value = thing({ flags: 3, value: 100n })
      expect(sys.ioctl(fd, 0, value)).toBe(0)
      expect(value.value).toBe(119n)
    })

    it('reads it back also when the call is refused', () => {
      const fd = noting((_cmd, arg, caller) => {
        caller.memory.copyOut(arg, Uint8Array.of(64))
        throw new ErrnoError('E2BIG', 'tell the size that is needed')
      })
      const value = thing()
      expect(outcome(() => sys.ioctl(fd, 0, value))).toBe('ioctl E2BIG')
      expect(value.argsz).toBe(64)
    })

    it('lends cells, byte arrays and strings', () => {
      const fd = noting((_cmd, arg, caller) => {
        const text = caller.memory.string(arg, 64)
        seen.push(text)
        caller.memory.copyOut(arg, Uint8Array.of(0xfe, 0xff, 0xff, 0xff))
        return 0
      })
      seen.length = 0
      const cell = s32(0x6968)
      sys.ioctl(fd, 0, cell)
      const bytes = Uint8Array.of(0x68, 0x6f, 0, 0)
      sys.ioctl(fd, 0, bytes)
      sys.ioctl(fd, 0, '0000:01:00.0')
      expect(seen).toEqual(['hi', 'ho', '0000:01:00.0'])
      expect([cell.value, bytes[0]]).toEqual([-2, 0xfe])
      cell.value = 5
      expect([...cell.bytes]).toEqual([5, 0, 0, 0])
    })

    it('lends memory that ends with the argument: reading past it faults', () => {
      const fd = noting((_cmd, arg, caller) => {
        const can = (n: number) => caller.memory.copyIn(arg, new Uint8Array(n))
        return (can(16) ? 1 : 0) + (can(17) ? 2 : 0)
      })
      expect(sys.ioctl(fd, 0, thing())).toBe(1)
      expect(sys.ioctl(fd, 0, new Uint8Array(5000))).toBe(3)
    })

    it('aligns an argument of any size to 8 bytes', () => {
      const fd = noting((_cmd, arg) => arg % 8)
      expect([1, 4, 7, 8, 13, 4096, 4097].map(n => sys.ioctl(fd, 0, new Uint8Array(n)))).toEqual([
        0, 0, 0, 0, 0, 0, 0,
      ])
    })

    it('keeps the arguments of nested calls apart', () => {
      const fd = noting((depth, arg, caller) => {
        const v = thing()
        caller.memory.copyIn(arg, v.bytes)
        if (depth > 0) {
          const inner = thing({ value: v.value * 2n })
          sys.ioctl(fd, depth - 1, inner)
          v.flags = Number(inner.value)
          const still = thing()
          caller.memory.copyIn(arg, still.bytes)
          expect(still.value).toBe(v.value)
        }
        v.value += 1n
        caller.memory.copyOut(arg, v.bytes)
        return 0
      })
      const value = thing({ value: 1n })
      sys.ioctl(fd, 5, value)
      expect([value.value, value.flags]).toEqual([2n, 3])
    })

    it('takes no memory call by call, whatever the sizes', () => {
      const fd = noting(() => 0)
      sys.ioctl(fd, 0, new Uint8Array(9000))
      const used = kernel.frames.used
      for (let i = 0; i < 100; i++) sys.ioctl(fd, 0, new Uint8Array(i * 90))
      expect(kernel.frames.used).toBe(used)
      sys.exit()
      expect(kernel.frames.used).toBe(0)
    })

    it('is ENOTTY where a file knows no requests', () => {
      expect(outcome(() => sys.ioctl(file({}), 0x3b64, thing()))).toBe('ioctl ENOTTY')
    })
  })

  describe('pread, pwrite, read, write', () => {
    const data = Uint8Array.from({ length: 32 }, (_, i) => i)
    const backed = (): Partial<OpenFile> => {
      const bytes = data.slice()
      return {
        pread: (into, offset) => {
          const part = bytes.subarray(offset, offset + into.length)
          into.set(part)
          return part.length
        },
        pwrite: (from, offset) => {
          bytes.set(from, offset)
          return from.length
        },
      }
    }

    it('read at an offset, short at the end', () => {
      const fd = file(backed())
      expect([...sys.pread(fd, 3, 4n)]).toEqual([4, 5, 6])
      expect([...sys.pread(fd, 8, 30)]).toEqual([30, 31])
      const into = new Uint8Array(4)
      expect(sys.pread(fd, into, 31)).toBe(1)
      expect([...into]).toEqual([31, 0, 0, 0])
    })

    it('read and write at the position of the descriptor', () => {
      const fd = file(backed())
      expect([...sys.read(fd, 2), ...sys.read(fd, 2)]).toEqual([0, 1, 2, 3])
      expect(sys.write(fd, Uint8Array.of(99))).toBe(1)
      expect([...sys.pread(fd, 3, 3)]).toEqual([3, 99, 5])
      expect([...sys.read(fd, 1)]).toEqual([5])
    })

    it('move bytes of process memory given by address', () => {
      const fd = file(backed())
      const map = sys.mmap(4096)
      expect(sys.pread(fd, { vaddr: map.vaddr + 1n, length: 3 }, 7)).toBe(3)
      expect([...map.bytes.subarray(0, 5)]).toEqual([0, 7, 8, 9, 0])
      expect(sys.pwrite(fd, { vaddr: map.vaddr, length: 2 }, 0)).toBe(2)
      expect([...sys.pread(fd, 3, 0)]).toEqual([0, 7, 2])
      expect(sys.read(fd, { vaddr: map.vaddr, length: 3 })).toBe(3)
      expect([...map.bytes.subarray(0, 3)]).toEqual([0, 7, 2])
    })

    it('fault on bad addresses: EFAULT, and nothing is written to the file', () => {
      const fd = file(backed())
      const map = sys.mmap(4096)
      const bad = { vaddr: map.vaddr + 4095n, length: 2 }
      expect(
        [
          () => sys.pread(fd, bad, 0),
          () => sys.pwrite(fd, bad, 8),
          () => sys.read(fd, bad),
          () => sys.write(fd, bad),
        ].map(outcome),
      ).toEqual(['pread EFAULT', 'pwrite EFAULT', 'read EFAULT', 'write EFAULT'])
      expect([...sys.pread(fd, 2, 8)]).toEqual([8, 9])
      expect(sys.pread(fd, { vaddr: map.vaddr + 4095n, length: 9 }, 31)).toBe(1)
    })

    it.each([-1, -1n, 2n ** 63n, Number.NaN])('refuse offset %s with EINVAL', offset => {
      const fd = file(backed())
      expect(outcome(() => sys.pread(fd, 1, offset))).toBe('pread EINVAL')
      expect(outcome(() => sys.pwrite(fd, data, offset))).toBe('pwrite EINVAL')
    })

    it('refuse a negative length with EINVAL', () => {
      expect(outcome(() => sys.pread(file(backed()), -1, 0))).toBe('pread EINVAL')
    })

    it('are EINVAL on a file without them, ESPIPE on a stream asked for a position', () => {
      const none = file({})
      const stream = file({ read: () => 0, write: () => 0 })
      const one = new Uint8Array(1)
      const all = (fd: number) =>
        [
          () => sys.read(fd, 1).length,
          () => sys.write(fd, one),
          () => sys.pread(fd, 1, 0),
          () => sys.pwrite(fd, one, 0),
        ].map(outcome)
      expect(all(none)).toEqual(['read EINVAL', 'write EINVAL', 'pread EINVAL', 'pwrite EINVAL'])
      expect(all(stream)).toEqual([0, 0, 'pread ESPIPE', 'pwrite ESPIPE'])
    })

    it.each([
      [O_RDONLY, ['ok', 'ok', 'write EBADF', 'pwrite EBADF']],
      [O_WRONLY, ['read EBADF', 'pread EBADF', 'ok', 'ok']],
      [O_RDWR, ['ok', 'ok', 'ok', 'ok']],
    ])('obey the access mode of open: %i', (flags, expected) => {
      const fd = file(backed(), flags)
      const one = new Uint8Array(1)
      const calls = [
        () => sys.read(fd, 1),
        () => sys.pread(fd, 1, 0),
        () => sys.write(fd, one),
        () => sys.pwrite(fd, one, 0),
      ]
      expect(calls.map(call => outcome(() => (call() === undefined ? 'nothing' : 'ok')))).toEqual(
        expected,
      )
    })
  })

  describe('mmap', () => {
    const mappable = (backing: () => MmapBacking, flags?: number) => {
      const calls: unknown[] = []
      const fd = file(
        {
          mmap: (length, offset, prot) => {
            calls.push([length, offset, prot])
            return backing()
          },
          release: () => calls.push('release'),
        },
        flags,
      )
      return { fd, calls }
    }

    it('gives anonymous memory of a length', () => {
      const map = sys.mmap(0x2000)
      expect([map.bytes.length, map.length, typeof map.vaddr]).toEqual([0x2000, 0x2000, 'bigint'])
      sys.munmap(map.vaddr, 0x2000)
      expect(sys.process.memory.copyIn(Number(map.vaddr), new Uint8Array(1))).toBe(false)
    })

    it('asks the file in whole pages, readable and writable by default', () => {
      const bytes = new Uint8Array(8192)
      const { fd, calls } = mappable(() => ({ bytes }))
      const map = sys.mmap({ fd, offset: 0x3000n, length: 4097, at: 0x40_0000n })
      expect(calls).toEqual([[8192, 0x3000, 3]])
      map.bytes[0] = 5
      expect([map.vaddr, bytes[0]]).toEqual([0x40_0000n, 5])
    })

    it('keeps the file open as long as it is mapped', () => {
      const { fd, calls } = mappable(() => ({ bytes: new Uint8Array(8192) }))
      const map = sys.mmap({ fd, offset: 0, length: 8192 })
      sys.close(fd)
      sys.munmap(map.vaddr, 4096)
      expect(calls).toEqual([[8192, 0, 3]])
      sys.munmap(map.vaddr + 4096n, 4096)
      expect(calls.at(-1)).toBe('release')
    })

    it('releases a mapped file at exit', () => {
      const { fd, calls } = mappable(() => ({ bytes: new Uint8Array(4096) }))
      sys.mmap({ fd, offset: 0, length: 4096 })
      sys.exit()
      expect(calls.filter(c => c === 'release')).toHaveLength(1)
    })

    it.each([
      ['mmap EINVAL', { length: 0, offset: 0 }, O_RDWR],
      ['mmap EINVAL', { length: 4096, offset: 0x800 }, O_RDWR],
      ['mmap EINVAL', { length: 4096, offset: -4096n }, O_RDWR],
      ['mmap EACCES', { length: 4096, offset: 0 }, O_RDONLY],
      ['mmap EACCES', { length: 4096, offset: 0, prot: PROT_READ }, O_WRONLY],
      ['ok', { length: 4096, offset: 0, prot: PROT_READ }, O_RDONLY],
    ])('is %s for %o of a file opened with %i', (expected, what, flags) => {
      const { fd, calls } = mappable(() => ({ bytes: new Uint8Array(4096) }), flags)
      expect(outcome(() => (sys.mmap({ fd, ...what }).length > 0 ? 'ok' : 'empty'))).toBe(expected)
      expect(calls.length).toBe(expected === 'ok' ? 1 : 0)
    })

    it('is ENODEV for a file that cannot be mapped', () => {
      expect(outcome(() => sys.mmap({ fd: file({}), offset: 0, length: 4096 }))).toBe('mmap ENODEV')
    })
  })

  it('a file without readiness is always readable, and cannot be watched: EPERM', () => {
    const fd = file({})
    expect(sys.readable(fd)).toBe(true)
    expect(outcome(() => sys.onReadable(fd, () => {}))).toBe('poll EPERM')
  })
})

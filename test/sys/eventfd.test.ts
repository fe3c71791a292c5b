import { beforeEach, describe, expect, it } from 'vitest'
import { EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE } from '../../src/sys/eventfd.js'
import type { Kernel } from '../../src/sys/kernel.js'
import { Sys } from '../../src/sys/sys.js'
import { aKernel, outcome } from './a-kernel.js'

const le64 = (v: bigint) => new Uint8Array(BigUint64Array.of(v).buffer)
const ALL = 0xffff_ffff_ffff_ffffn

describe('eventfd(2)', () => {
  let kernel: Kernel
  let sys: Sys

  beforeEach(() => {
    kernel = aKernel()
    sys = new Sys(kernel.spawn())
  })

  const read = (fd: number) =>
    outcome(() => new DataView(sys.read(fd, 8).buffer).getBigUint64(0, true))
  const write = (fd: number, v: bigint) => outcome(() => sys.write(fd, le64(v)))

  it('counts writes and gives the sum to the first read', () => {
    const fd = sys.eventfd(3, EFD_NONBLOCK)
    expect([write(fd, 4n), write(fd, 1n << 40n)]).toEqual([8, 8])
    expect([read(fd), read(fd)]).toEqual([(1n << 40n) + 7n, 'read EAGAIN'])
  })

  it('EFD_SEMAPHORE gives 1 at a time', () => {
    const fd = sys.eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC)
    expect([read(fd), read(fd), read(fd)]).toEqual([1n, 1n, 'read EAGAIN'])
  })

  it('takes the initial value as an unsigned int', () => {
    expect(read(sys.eventfd(-1))).toBe(0xffff_ffffn)
  })

  it('is full at 2^64-2: EAGAIN beyond, EINVAL for 2^64-1', () => {
    const fd = sys.eventfd(0, EFD_NONBLOCK)
    expect(write(fd, ALL)).toBe('write EINVAL')
    expect(write(fd, ALL - 1n)).toBe(8)
    expect(write(fd, 1n)).toBe('write EAGAIN')
    expect(write(fd, 0n)).toBe(8)
    expect(read(fd)).toBe(ALL - 1n)
  })

  it('a signal of the kernel stays at 2^64-1', () => {
    const fd = sys.eventfd(0, EFD_NONBLOCK)
    write(fd, ALL - 1n)
    sys.eventfdOf(fd).signal()
    sys.eventfdOf(fd).signal(5)
    expect(read(fd)).toBe(ALL)
  })

  it.each([0, 7])('refuses buffers of %i bytes with EINVAL', length => {
    const fd = sys.eventfd(1)
    expect(outcome(() => sys.read(fd, length))).toBe('read EINVAL')
    expect(outcome(() => sys.write(fd, new Uint8Array(length)))).toBe('write EINVAL')
    expect(read(fd)).toBe(1n)
  })

  it('moves 8 bytes whatever the buffer has', () => {
    const fd = sys.eventfd(1)
    const into = new Uint8Array(16).fill(0xee)
    expect(sys.read(fd, into)).toBe(8)
    expect([into[0], into[7], into[8]]).toEqual([1, 0, 0xee])
    expect(sys.write(fd, new Uint8Array(16).fill(1))).toBe(8)
    expect(read(fd)).toBe(0x0101_0101_0101_0101n)
  })

  it('refuses unknown flags with EINVAL', () => {
    expect(outcome(() => sys.eventfd(0, 2))).toBe('eventfd EINVAL')
  })

  it('is a stream without positions, requests or mappings', () => {
    const fd = sys.eventfd(1)
    expect(outcome(() => sys.pread(fd, 8, 0))).toBe('pread ESPIPE')
    expect(outcome(() => sys.pwrite(fd, le64(1n), 0))).toBe('pwrite ESPIPE')
    expect(outcome(() => sys.ioctl(fd, 0x3b64))).toBe('ioctl ENOTTY')
    expect(outcome(() => sys.mmap({ fd, offset: 0, length: 4096 }))).toBe('mmap ENODEV')
  })

  it('a blocking read lets time pass until somebody signals', () => {
    const fd = sys.eventfd()
    kernel.clock.later(() => {}, 5)
    kernel.clock.later(() => sys.eventfdOf(fd).signal(2), 10)
    kernel.clock.later(() => sys.eventfdOf(fd).signal(), 20)
    expect(read(fd)).toBe(2n)
    expect([kernel.clock.now, kernel.clock.pending]).toEqual([10, 1])
  })

  it('a blocking write waits for room', () => {
    const fd = sys.eventfd()
    write(fd, ALL - 1n)
    kernel.clock.later(() => sys.eventfdOf(fd).take(), 10)
    expect(write(fd, 5n)).toBe(8)
    expect(read(fd)).toBe(5n)
  })

  it('a wait that nothing can end is EINTR', () => {
    const fd = sys.eventfd()
    expect(read(fd)).toBe('read EINTR')
    kernel.clock.later(() => {}, 5)
    expect(read(fd)).toBe('read EINTR')
    expect(kernel.clock.now).toBe(5)
  })

  it('tells who listens at each signal, at once, and nobody after', () => {
    const fd = sys.eventfd()
    const seen: string[] = []
    const end = sys.eventfdOf(fd).onSignal(() => seen.push(`kernel ${sys.eventfdOf(fd).count}`))
    sys.onReadable(fd, () => seen.push('program'))
    expect(sys.readable(fd)).toBe(false)
    write(fd, 2n)
    expect(sys.readable(fd)).toBe(true)
    end()
    sys.eventfdOf(fd).signal()
    expect(seen).toEqual(['kernel 2', 'program', 'program'])
  })

  it('can be awaited by a program', async () => {
    const fd = sys.eventfd()
    const { events } = sys.eventfdOf(fd)
    const signalled = new Promise<void>(resolve => events.once('signal', resolve))
    sys.eventfdOf(fd).signal()
    await signalled
    expect(read(fd)).toBe(1n)
  })

  it('tells the kernel when its last descriptor is closed', () => {
    const fd = sys.eventfd()
    let released = 0
    sys.eventfdOf(fd).onRelease(() => released++)
    const second = sys.dup(fd)
    sys.close(fd)
    expect(released).toBe(0)
    sys.close(second)
    expect(released).toBe(1)
  })

  it('eventfdOf knows eventfds from other files: EBADF, EINVAL', () => {
    kernel.nodes.register('/dev/other', () => ({ kind: 'other' }))
    expect(outcome(() => sys.eventfdOf(9))).toBe('eventfd EBADF')
    expect(outcome(() => sys.eventfdOf(sys.open('/dev/other')))).toBe('eventfd EINVAL')
  })
})

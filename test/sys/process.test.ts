import { beforeEach, describe, expect, it } from 'vitest'
import type { Kernel } from '../../src/sys/kernel.js'
import { Sys } from '../../src/sys/sys.js'
import { aKernel, outcome } from './a-kernel.js'

describe('Process', () => {
  let kernel: Kernel
  let events: string[]

  beforeEach(() => {
    kernel = aKernel()
    events = []
    kernel.nodes.register('/dev/', (_caller, path) => ({
      kind: path.slice(5),
      ioctl: (_cmd, _arg, caller) => caller.pid,
      release: () => events.push(`release ${path.slice(5)}`),
    }))
  })

  it('has a pid, an mm and a place in the kernel until it exits', () => {
    const one = kernel.spawn()
    const two = kernel.spawn()
    expect(one.pid).not.toBe(two.pid)
    expect(one.mm).not.toBe(two.mm)
    expect(kernel.processes).toEqual([one, two])
    one.exit()
    expect([one.exited, kernel.processes]).toEqual([true, [two]])
  })

  it('starts with the limits and capabilities it is given', () => {
    const process = kernel.spawn({ memlock: 10_000, nofile: 3, capabilities: ['CAP_IPC_LOCK'] })
    expect([process.memory.memlockLimitPages, process.fds.limit]).toEqual([2, 3])
    expect(process.memory.capIpcLock).toBe(true)
    process.capabilities.delete('CAP_IPC_LOCK')
    expect(process.memory.capIpcLock).toBe(false)
    expect(kernel.spawn().memory.memlockLimitPages).toBe(2048)
    expect(kernel.spawn({ memlock: Infinity }).memory.memlockLimitPages).toBe(Infinity)
  })

  it('fork gives copied memory, the same descriptors and capabilities, and another mm', () => {
    const parent = new Sys(kernel.spawn({ memlock: 4096, capabilities: ['CAP_IPC_LOCK'] }))
    const fd = parent.open('/dev/a')
    const map = parent.mmap(4096)
    map.bytes[0] = 1
    const child = parent.fork()
    map.bytes[0] = 2
    expect(child.process.mm).not.toBe(parent.process.mm)
    expect(child.process.pid).not.toBe(parent.process.pid)
    const into = new Uint8Array(1)
    child.process.memory.copyIn(Number(map.vaddr), into)
    expect(into[0]).toBe(1)
    expect([child.ioctl(fd, 0), parent.ioctl(fd, 0)]).toEqual([
      child.process.pid,
      parent.process.pid,
    ])
    expect([...child.process.capabilities]).toEqual(['CAP_IPC_LOCK'])
    child.process.capabilities.clear()
    expect([child.process.memory.capIpcLock, parent.process.memory.capIpcLock]).toEqual([
      false,
      true,
    ])
    expect(child.process.memory.memlockLimitPages).toBe(1)
  })

  it('fork shares open files: the last of parent and child releases them', () => {
    const parent = new Sys(kernel.spawn())
    const fd = parent.open('/dev/a')
    const child = parent.fork()
    parent.close(fd)
    expect(events).toEqual([])
    expect(outcome(() => parent.ioctl(fd, 0))).toBe('ioctl EBADF')
    expect(child.ioctl(fd, 0)).toBe(child.process.pid)
    child.exit()
    expect(events).toEqual(['release a'])
  })

  it('fork that finds no memory leaves nothing behind: ENOMEM', () => {
    const parent = new Sys(kernel.spawn())
    parent.open('/dev/a')
    parent.mmap(40 * 4096)
    const used = kernel.frames.used
    expect(outcome(() => parent.fork())).toBe('fork ENOMEM')
    expect([kernel.frames.used, kernel.processes.length]).toEqual([used, 1])
    parent.exit()
    expect(events).toEqual(['release a'])
  })

  it('exit releases memory, then files lowest first, then tells who waits', () => {
    const process = kernel.spawn()
    const sys = new Sys(process)
    sys.open('/dev/a')
    sys.open('/dev/b')
    const map = sys.mmap(3 * 4096)
    const pinned = process.memory.pin(Number(map.vaddr) / 4096, true)
    kernel.nodes.register('/dev/last', () => ({
      kind: 'last',
      release: () => events.push(`release last with ${kernel.frames.used} frames`),
    }))
    sys.open('/dev/last')
    process.onExit(() => events.push(`exit with ${process.fds.count} fds`))
    process.onExit(() => events.push('cancelled'))()
    sys.exit()
    sys.exit()
    expect(events).toEqual([
      'release a',
      'release b',
      'release last with 1 frames',
      'exit with 0 fds',
    ])
    process.memory.unpin(pinned)
    expect(kernel.frames.used).toBe(0)
  })

  it('does nothing any more once it has exited', () => {
    const sys = new Sys(kernel.spawn())
    const fd = sys.open('/dev/a')
    sys.exit()
    expect(
      [
        () => sys.open('/dev/a'),
        () => sys.mmap(4096),
        () => sys.eventfd(),
        () => sys.fork(),
        () => sys.ioctl(fd, 0),
        () => sys.close(fd),
      ].map(outcome),
    ).toEqual([
      'open ESRCH',
      'mmap ESRCH',
      'eventfd ESRCH',
      'fork ESRCH',
      'ioctl EBADF',
      'close EBADF',
    ])
  })
})

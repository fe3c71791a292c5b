// Whatever bytes a caller hands to the calls of private memory, the answer is a result or an errno.
import { expect, it } from 'vitest'
import { ErrnoError } from '../../../src/base/errno.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { often } from '../../support/long.js'
import { PrivateGuest } from './guest.js'

/** A small generator of 32-bit values (mulberry32). */
function random(seed: number): () => number {
  let a = seed
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return (t ^ (t >>> 14)) >>> 0
  }
}

it.each([1, 2, 3])('random arguments, seed %i', seed => {
  const next = random(seed)
  const g = new PrivateGuest({ memfd: { edition: seed === 2 ? 'mmap' : 'base', order: seed } })
  const files = [g.createMemfd(1 << 16), g.createMemfd(1 << 20)]
  const calls = [
    [g.vm, uapi.KVM_SET_USER_MEMORY_REGION2],
    [g.vm, uapi.KVM_SET_USER_MEMORY_REGION2],
    [g.vm, uapi.KVM_SET_MEMORY_ATTRIBUTES],
    [g.vm, uapi.KVM_CREATE_GUEST_MEMFD],
    [g.vcpu, uapi.KVM_PRE_FAULT_MEMORY],
  ] as const
  let accepted = 0
  for (let round = 0; round < often(600, 20_000); round++) {
    const bytes = new Uint8Array(160)
    // Pages and small numbers reach further than noise.
    for (let word = 0; word < 6; word++) {
      const kind = next() % 6
      const value = kind < 2 ? 0 : kind < 4 ? (next() % 64) << 12 : kind === 4 ? next() % 8 : next()
      new DataView(bytes.buffer).setUint32(word * 8, value, true)
    }
    if (next() % 2 === 0) bytes[4] = 4
    new DataView(bytes.buffer).setUint32(40, files[next() % 2]!, true)
    const [fd, cmd] = calls[next() % calls.length]!
    try {
      g.sys.ioctl(fd, cmd, bytes)
      accepted++
      if (cmd === uapi.KVM_CREATE_GUEST_MEMFD) g.sys.close(g.sys.process.fds.count - 1)
    } catch (error) {
      expect(error).toBeInstanceOf(ErrnoError)
    }
    try {
      g.sys.fallocate(files[next() % 2]!, next() % 4, (next() % 32) << 12, (next() % 32) << 12)
    } catch (error) {
      expect(error).toBeInstanceOf(ErrnoError)
    }
    if (round % 8 === 0) g.peek((next() % 64) << 12)
  }
  expect(accepted).toBeGreaterThan(20)
  g.sys.exit()
  expect(g.host.kvm.vms.size).toBe(0)
  expect(g.host.frames.used).toBe(0)
})

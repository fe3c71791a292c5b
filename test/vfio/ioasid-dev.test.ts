// /dev/ioasid of vSVA v8: one open file a process, ids in its set, the control group's limit.
import { afterEach, describe, expect, it } from 'vitest'
import { s32 } from '../../src/sys/sys.js'
import {
  IOASID_API_VERSION,
  IOASID_GET_API_VERSION,
  IOASID_GET_INFO,
  IOASID_REQUEST_ALLOC,
  IOASID_REQUEST_FREE,
  ioasid_info,
  ioasid_request,
} from '../../src/uapi.js'
import { IoasidDevice } from '../../src/vfio/ioasid-dev.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

function setup(limit = Number.POSITIVE_INFINITY) {
  const b = bench()
  const { kernel, ioasid } = b
  const node = new IoasidDevice({ kernel, ioasid, limit: () => limit })
  const user = (sys = b.sys) => {
    const fd = sys.open('/dev/ioasid')
    return {
      sys,
      fd,
      alloc: (min = 1, max = 0xf_ffff, init = {}) =>
        sys.ioctl(fd, IOASID_REQUEST_ALLOC, ioasid_request({ range: { min, max }, ...init })),
      free: (id: number) => sys.ioctl(fd, IOASID_REQUEST_FREE, s32(id)),
      close: () => sys.close(fd),
    }
  }
  return { b, ioasid, node, user }
}

describe('opening', () => {
  it('E134: once a process; EBUSY the second time, again after closing, others at any time', () => {
    const { b, node, user } = setup()
    const one = user()
    refused('EBUSY', () => b.sys.open('/dev/ioasid'))
    user(b.spawn())
    expect(node.size).toBe(2)
    one.close()
    user()
  })

  it('a child has its own', () => {
    const { user } = setup()
    const parent = user()
    const child = parent.sys.fork()
    user(child)
  })
})

describe('ids', () => {
  it('the lowest free one in the range, in the set of the process, given back by free and by close', () => {
    const { b, ioasid, node, user } = setup()
    const one = user()
    const other = user(b.spawn())
    expect([one.alloc(), one.alloc(), one.alloc(100, 200)]).toEqual([1, 2, 100])
    expect(other.alloc()).toBe(3)
    expect(node.setOf(one.sys.process.mm)!.count).toBe(3)
    one.free(2)
    expect(other.alloc()).toBe(2)
    one.free(3)
    expect(ioasid.state(3)).toBe('IDLE')
    one.close()
    expect([1, 100].map(id => ioasid.state(id))).toEqual(['FREE', 'FREE'])
  })

  it('as many as there are, more than a set reserves at first', () => {
    const { user } = setup()
    const u = user()
    const ids = Array.from({ length: 300 }, () => u.alloc())
    expect(ids.at(-1)).toBe(300)
  })

  it('E135: EINVAL in a control group that may hold none', () => {
    const { user } = setup(0)
    const u = user()
    refused('EINVAL', () => u.alloc())
  })

  it('EINVAL beyond what the group may hold, until one is freed', () => {
    const { user } = setup(2)
    const u = user()
    u.alloc()
    u.alloc()
    refused('EINVAL', () => u.alloc())
    u.free(1)
    expect(u.alloc()).toBe(1)
  })

  it.each([
    ['min > max', 5, 4, {}],
    ['2^31', 1, 0x8000_0000, {}],
    ['a range that is taken', 7, 7, {}],
    ['a range beyond the capacity', 0x10_0000, 0x7fff_ffff, {}],
    ['flags', 1, 9, { flags: 1 }],
    ['argsz 15', 1, 9, { argsz: 15 }],
  ] as const)('EINVAL for %s', (_, min, max, init) => {
    const { user } = setup()
    const u = user()
    u.alloc(7, 7)
    refused('EINVAL', () => u.alloc(min, max, init))
  })

  it('free: EINVAL for a negative id, success for one that is not its own', () => {
    const { user } = setup()
    const u = user()
    refused('EINVAL', () => u.free(-1))
    expect([u.free(500), u.free(500), u.free(0x7fff_ffff)]).toEqual([0, 0, 0])
  })
})

describe('other calls', () => {
  it('version, and 31 bits', () => {
    const { user } = setup()
    const { sys, fd } = user()
    expect(sys.ioctl(fd, IOASID_GET_API_VERSION)).toBe(IOASID_API_VERSION)
    const info = ioasid_info()
    sys.ioctl(fd, IOASID_GET_INFO, info)
    expect(info.ioasid_bits).toBe(31)
    refused('EINVAL', () => sys.ioctl(fd, IOASID_GET_INFO, ioasid_info({ argsz: 8 })))
    refused('EINVAL', () => sys.ioctl(fd, IOASID_GET_INFO, ioasid_info({ flags: 1 })))
  })

  it('EINVAL for unknown numbers, EFAULT for arguments that are not there', () => {
    const { user } = setup()
    const { sys, fd } = user()
    refused('EINVAL', () => sys.ioctl(fd, 0x6968))
    for (const cmd of [IOASID_GET_INFO, IOASID_REQUEST_ALLOC, IOASID_REQUEST_FREE])
      refused('EFAULT', () => sys.ioctl(fd, cmd, 0x1000))
  })
})

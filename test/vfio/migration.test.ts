import { afterEach, describe, expect, it } from 'vitest'
import { acs } from '../../src/pci/device-model.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { svaEngine } from '../../src/pci/devices/sva-engine.js'
import * as uapi from '../../src/uapi.js'
import {
  VFIO_DEVICE_FEATURE_GET as GET,
  VFIO_DEVICE_FEATURE_PROBE as PROBE,
  VFIO_DEVICE_FEATURE_SET as SET,
  VFIO_DEVICE_FEATURE,
  VFIO_MIG_GET_PRECOPY_INFO,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_feature,
} from '../../src/uapi.js'
import { bench, checkBenches, plainDevice, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const MIGRATION = uapi.VFIO_DEVICE_FEATURE_MIGRATION
const STATE = uapi.VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
const SIZE = uapi.VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
const ERROR = uapi.VFIO_DEVICE_STATE_ERROR
const STOP = uapi.VFIO_DEVICE_STATE_STOP
const RUNNING = uapi.VFIO_DEVICE_STATE_RUNNING
const STOP_COPY = uapi.VFIO_DEVICE_STATE_STOP_COPY
const RESUMING = uapi.VFIO_DEVICE_STATE_RESUMING
const P2P = uapi.VFIO_DEVICE_STATE_RUNNING_P2P
const PRE_COPY = uapi.VFIO_DEVICE_STATE_PRE_COPY
const PRE_COPY_P2P = uapi.VFIO_DEVICE_STATE_PRE_COPY_P2P

const { SRC, DST, LEN, CTRL, STATUS } = dmaCopy.bar0
const WORDS = 'a copy that moves house'
const bar = (at: number) => BigInt(at)

/** A machine of its own with one function open; memory mapped at IOVA 1 MiB. */
function machine(options: Parameters<typeof bench>[0] = {}) {
  const b = bench({ profile: 'L72', ...options })
  const p = b.program()
  const { sys } = p
  const c = p.container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
  const fd = c.device()
  const memory = sys.mmap(0x2000)
  c.map(0x10_0000n, memory.vaddr, 0x2000n)
  const config = 7n << 40n
  sys.pwrite(fd, Uint8Array.of(6, 0), config + 4n)
  const feature = (flags: number, data: Uint8Array = new Uint8Array(8)) => {
    const arg = vfio_device_feature({ flags, data })
    sys.ioctl(fd, VFIO_DEVICE_FEATURE, arg)
    return new DataView(arg.bytes.buffer, arg.bytes.byteOffset + vfio_device_feature.size)
  }
  const go = (state: number) => {
    const data = uapi.vfio_device_feature_mig_state({ device_state: state, data_fd: 77 })
    return feature(SET | STATE, data.bytes).getInt32(4, true)
  }
  const state = () => feature(GET | STATE).getUint32(0, true)
  const write = (at: number, value: number, size = 8) => {
    const bytes = new Uint8Array(size)
    new DataView(bytes.buffer).setUint32(0, value, true)
    sys.pwrite(fd, bytes, bar(at))
  }
  const start = () => {
    write(SRC.offset, 0x10_0000)
    write(DST.offset, 0x10_1000)
    write(LEN.offset, WORDS.length, 4)
    write(CTRL.offset, 1, 4)
  }
  const status = () => sys.pread(fd, 4, bar(STATUS.offset))[0]
  const copied = () => new TextDecoder().decode(memory.bytes.slice(0x1000, 0x1000 + WORDS.length))
  return { b, sys, fd, memory, feature, go, state, start, status, copied, write }
}

/** All that is left of a stream. */
function drain(sys: ReturnType<typeof machine>['sys'], fd: number): Uint8Array {
  const bytes: number[] = []
  for (;;) {
    const piece = sys.read(fd, 7)
    if (piece.length === 0) return Uint8Array.from(bytes)
    bytes.push(...piece)
  }
}

describe('a migration', () => {
  it('takes a copy that has begun to another machine, where it ends; the source can go on too', () => {
    const from = machine()
    const to = machine()
    for (const m of [from, to]) m.memory.bytes.set(new TextEncoder().encode(WORDS))
    from.start()
    const data = from.go(STOP_COPY)
    from.b.settle()
    expect([from.status(), from.state()]).toEqual([0, STOP_COPY])
    const size = Number(from.feature(GET | SIZE).getBigUint64(0, true))
    const stream = drain(from.sys, data)
    expect(stream.length).toBe(size)

    const into = to.go(RESUMING)
    for (let i = 0; i < stream.length; i += 5) to.sys.write(into, stream.subarray(i, i + 5))
    to.sys.close(into)
    expect(to.go(STOP)).toBe(-1)
    to.b.settle()
    expect([to.status(), to.copied()]).toEqual([0, '\0'.repeat(WORDS.length)])
    expect(to.go(RUNNING)).toBe(-1)
    to.b.settle()
    expect([to.status(), to.copied()]).toEqual([1, WORDS])

    expect(from.status()).toBe(0)
    from.go(RUNNING)
    from.b.settle()
    expect([from.status(), from.copied()]).toEqual([1, WORDS])
    refused('ENODEV', () => from.sys.read(data, 1))
  })
  it('sends who the device is ahead in PRE_COPY, and the rest on the same descriptor', () => {
    const m = machine()
    const data = m.go(PRE_COPY)
    const info = uapi.vfio_precopy_info({})
    m.sys.ioctl(data, VFIO_MIG_GET_PRECOPY_INFO, info)
    expect([info.initial_bytes, info.dirty_bytes]).toEqual([16n, 0n])
    const ahead = m.sys.read(data, 100)
    expect(ahead.length).toBe(16)
    refused('ENOMSG', () => m.sys.read(data, 100))
    m.start()
    m.b.settle()
    expect(m.status()).toBe(1)
    expect(m.go(STOP_COPY)).toBe(-1)
    refused('EINVAL', () => m.sys.ioctl(data, VFIO_MIG_GET_PRECOPY_INFO, info))
    const rest = drain(m.sys, data)
    const into = m.go(RESUMING)
    m.sys.write(into, ahead)
    m.sys.write(into, rest)
    m.go(RUNNING)
    expect(m.status()).toBe(1)
  })
  it('carries the state of the sva-engine', () => {
    const from = machine({ device: svaEngine })
    const to = machine({ device: svaEngine })
    from.sys.pwrite(from.fd, Uint8Array.of(3), 0x100n)
    const stream = drain(from.sys, from.go(STOP_COPY))
    expect(drain(to.sys, to.go(STOP_COPY))).not.toEqual(stream)
    to.sys.write(to.go(RESUMING), stream)
    to.go(RUNNING)
    expect(drain(to.sys, to.go(STOP_COPY))).toEqual(stream)
  })
  it('holds work in RUNNING_P2P, and a reset makes the device run again without it', () => {
    const m = machine()
    m.start()
    m.go(P2P)
    m.b.settle()
    expect(m.status()).toBe(0)
    m.sys.ioctl(m.fd, uapi.VFIO_DEVICE_RESET)
    expect(m.state()).toBe(RUNNING)
    m.b.settle()
    expect(m.status()).toBe(0)
  })
  it('ends with the last close of the device: the next user finds it running', () => {
    const m = machine()
    const data = m.go(STOP_COPY)
    m.sys.close(m.fd)
    refused('ENODEV', () => m.sys.read(data, 1))
  })
})

describe('MIG_DEVICE_STATE', () => {
  // biome-ignore format: table
  it.each([
    ['RUNNING',      [],                       [STOP, RUNNING, STOP_COPY, RESUMING, P2P, PRE_COPY, PRE_COPY_P2P], []],
    ['STOP',         [STOP],                   [STOP, RUNNING, STOP_COPY, RESUMING, P2P], [PRE_COPY, PRE_COPY_P2P]],
    ['STOP_COPY',    [STOP_COPY],              [STOP, RUNNING, STOP_COPY, RESUMING, P2P], [PRE_COPY, PRE_COPY_P2P]],
    ['RUNNING_P2P',  [P2P],                    [STOP, RUNNING, STOP_COPY, RESUMING, P2P, PRE_COPY, PRE_COPY_P2P], []],
    ['PRE_COPY',     [PRE_COPY],               [STOP, RUNNING, STOP_COPY, RESUMING, P2P, PRE_COPY, PRE_COPY_P2P], []],
    ['PRE_COPY_P2P', [PRE_COPY_P2P],           [STOP, RUNNING, STOP_COPY, RESUMING, P2P, PRE_COPY, PRE_COPY_P2P], []],
  ] as const)('%s leads where it may', (_name, way, legal, illegal) => {
    for (const to of [...legal, ...illegal, ERROR, 8, 0xffff_ffff]) {
      const m = machine()
      for (const s of way) m.go(s)
      const before = m.state()
      if ((legal as readonly number[]).includes(to)) {
        m.go(to)
        expect(m.state()).toBe(to)
      } else {
        refused('EINVAL', () => m.go(to))
        expect(m.state()).toBe(before)
      }
    }
  })
  // biome-ignore format: table
  it.each([
    ['STOP_COPY',             [STOP_COPY],              true],
    ['RESUMING',              [RESUMING],               true],
    ['PRE_COPY',              [PRE_COPY],               true],
    ['PRE_COPY_P2P',          [PRE_COPY_P2P],           true],
    ['PRE_COPY to P2P of it', [PRE_COPY, PRE_COPY_P2P], false],
    ['the same state again',  [STOP_COPY, STOP_COPY],   false],
    ['STOP',                  [STOP],                   false],
  ] as const)('%s answers with a descriptor only where a stream begins', (_name, way, begins) => {
    const m = machine()
    const fds = way.map(m.go)
    expect(fds.at(-1)! >= 0).toBe(begins)
    if (begins) expect(m.sys.process.fds.get(fds.at(-1)!)?.kind).toBe('vfio-migration')
  })
  it('a stream that is not whole keeps the device in RESUMING, and more of it may follow', () => {
    const m = machine()
    const stream = drain(m.sys, m.go(STOP_COPY))
    const into = m.go(RESUMING)
    refused('EINVAL', () => m.go(STOP))
    m.sys.write(into, stream.subarray(0, -1))
    refused('EINVAL', () => m.go(RUNNING))
    expect(m.state()).toBe(RESUMING)
    m.sys.write(into, stream.subarray(-1))
    refused('EINVAL', () => m.sys.write(into, Uint8Array.of(0)))
    m.go(RUNNING)
    expect(m.state()).toBe(RUNNING)
    refused('ENODEV', () => m.sys.write(into, Uint8Array.of(0)))
  })
  it('a damaged stream is not taken, and only a reset leads out', () => {
    const m = machine()
    const stream = drain(m.sys, m.go(STOP_COPY))
    stream[stream.length - 3]! ^= 1
    m.sys.write(m.go(RESUMING), stream)
    refused('EINVAL', () => m.go(STOP))
    m.sys.ioctl(m.fd, uapi.VFIO_DEVICE_RESET)
    expect(m.state()).toBe(RUNNING)
  })
  it.each([
    '{}',
    'null',
    '{"state":{"registers":{"$bytes":[1]},"device":0}}',
    '{"state":{"registers":7,"device":{}}}',
    '{"state":{"registers":REGISTERS,"device":{}}}',
    '{"state":{"registers":REGISTERS,"device":1000000000}}',
  ])('refuses the state %s, which the model does not know: ERROR, until reset', text => {
    const m = machine()
    const good = drain(m.sys, m.go(STOP_COPY))
    const { state } = JSON.parse(new TextDecoder().decode(good.slice(24)))
    const body = new TextEncoder().encode(
      text.replace('REGISTERS', JSON.stringify(state.registers)),
    )
    const head = good.slice(0, 16)
    const frame = new Uint8Array(8)
    new DataView(frame.buffer).setUint32(0, body.length, true)
    new DataView(frame.buffer).setUint32(4, crc(body), true)
    const into = m.go(RESUMING)
    for (const part of [head, frame, body]) m.sys.write(into, part)
    refused('EINVAL', () => m.go(STOP))
    expect(m.state()).toBe(ERROR)
    refused('EINVAL', () => m.go(RUNNING))
    refused('EINVAL', () => m.go(ERROR))
    m.sys.ioctl(m.fd, uapi.VFIO_DEVICE_RESET)
    m.start()
    m.b.settle()
    expect(m.status()).toBe(1)
  })
  it('refuses the stream of another model as soon as it shows', () => {
    const from = machine({ device: svaEngine })
    const stream = drain(from.sys, from.go(STOP_COPY))
    const to = machine()
    const into = to.go(RESUMING)
    expect(to.sys.write(into, stream.subarray(0, 8))).toBe(8)
    refused('EINVAL', () => to.sys.write(into, stream.subarray(8, 16)))
    refused('EBADF', () => to.sys.read(into, 1))
  })
  it('EMFILE changes nothing, nor does a stream that finds no memory', () => {
    const m = machine()
    const { fds, kernel } = m.sys.process
    const { limit } = fds
    fds.limit = fds.count
    refused('EMFILE', () => m.go(STOP_COPY))
    expect(m.state()).toBe(RUNNING)
    fds.limit = limit
    kernel.failures.failNth(2)
    refused('ENOMEM', () => m.go(RESUMING))
    expect([m.state(), kernel.failures.disarm()]).toEqual([
      RUNNING,
      ['a descriptor', 'a migration stream'],
    ])
  })
  it('answers -1 for the descriptor of a change refused', () => {
    const m = machine()
    const data = uapi.vfio_device_feature_mig_state({ device_state: 99, data_fd: 77 }).bytes
    const arg = vfio_device_feature({ flags: SET | STATE, data })
    refused('EINVAL', () => m.sys.ioctl(m.fd, VFIO_DEVICE_FEATURE, arg))
    expect(new DataView(arg.data.buffer, arg.data.byteOffset).getInt32(4, true)).toBe(-1)
  })
})

describe('the features of migration', () => {
  it('MIGRATION reports STOP_COPY, P2P and PRE_COPY', () => {
    expect(
      machine()
        .feature(GET | MIGRATION)
        .getBigUint64(0, true),
    ).toBe(7n)
  })
  // biome-ignore format: table
  it.each([
    ['L72', MIGRATION | SET,         8, 'EINVAL'],
    ['L72', MIGRATION,               8, 'EINVAL'],
    ['L72', MIGRATION | GET,         7, 'EINVAL'],
    ['L72', MIGRATION | SET | PROBE, 8, 'EINVAL'],
    ['L72', STATE | GET | SET,       8, 'EINVAL'],
    ['L72', STATE | SET,             4, 'EINVAL'],
    ['L72', SIZE | SET,              8, 'EINVAL'],
    ['L72', SIZE | GET,              0, 'EINVAL'],
    ['L72', uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY | SET, 8, 'ENOTTY'],
    ['L72', uapi.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT | SET,  8, 'ENOTTY'],
    ['V7R', MIGRATION | GET,         8, 'ENOTTY'],
    ['V7R', STATE | SET,             8, 'ENOTTY'],
  ] as const)('%s flags %d with %d bytes: %s', (profile, flags, tail, errno) => {
    const m = machine({ profile })
    refused(errno, () => m.feature(flags, new Uint8Array(tail)))
  })
  it.each([MIGRATION | GET, STATE | GET | SET, STATE | SET, SIZE | GET, STATE])(
    'probe of flags %d has no effect and needs no payload',
    flags => {
      const m = machine()
      m.feature(flags | PROBE, new Uint8Array(0))
      expect(m.state()).toBe(RUNNING)
    },
  )
  it('a model without a state to save has none of them, probed or not', () => {
    const m = machine({ device: plainDevice([acs()]) })
    for (const flags of [MIGRATION | GET, MIGRATION | PROBE, STATE | SET, SIZE | GET, STATE | 0])
      refused('ENOTTY', () => m.feature(flags))
  })
  it('PRECOPY_INFO refuses a short argsz and an unreadable argument; other calls are unknown', () => {
    const m = machine()
    const data = m.go(PRE_COPY)
    const info = uapi.vfio_precopy_info({ argsz: 23 })
    refused('EINVAL', () => m.sys.ioctl(data, VFIO_MIG_GET_PRECOPY_INFO, info))
    refused('EFAULT', () => m.sys.ioctl(data, VFIO_MIG_GET_PRECOPY_INFO, 8n))
    refused('ENOTTY', () => m.sys.ioctl(data, VFIO_DEVICE_FEATURE, info))
  })
})

function crc(bytes: Uint8Array): number {
  let value = 0xffff_ffff
  for (const byte of bytes)
    for (let bit = 0; bit < 8; bit++)
      value = (value >>> 1) ^ ((value ^ (byte >> bit)) & 1 ? 0xedb8_8320 : 0)
  return ~value >>> 0
}

// Devices of the fuzzer's machine: dma-copy, driven through its registers, and devices that make requests when the
// fuzzer says so, with and without translation caches, page requests and full PASID width.

import { bank, bits, r32 } from '../src/base/fields.js'
import {
  ats,
  type DevicePort,
  defineDevice,
  msix,
  pasidCapability,
  pri,
} from '../src/pci/device-model.js'
import { dmaCopy } from '../src/pci/devices/dma-copy.js'
import type { DeviceModel } from '../src/pci/function.js'
import type { DeviceFacts } from './model/state.js'

/** A device and its place. `group` counts groups from 0 in the order of first members. */
export interface Place extends DeviceFacts {
  /** The model, and where it leaves its port. */
  readonly make: (port: (p: DevicePort) => void) => DeviceModel
}

interface Kind {
  readonly ats: boolean
  readonly pri: boolean
  readonly pasidWidth: number
}

function commanded(kind: Kind): Place['make'] {
  return port =>
    defineDevice({
      name: 'commanded',
      identity: { vendorId: 0x1234, deviceId: 0x0f22, classCode: 0x088000 },
      capabilities: [
        msix({ vectors: 2, bar: 2 }),
        ...(kind.ats ? [ats()] : []),
        ...(kind.pri ? [pri({ capacity: 32 })] : []),
        pasidCapability({ width: kind.pasidWidth }),
      ],
      bar0: bank('commanded', { SCRATCH: r32(0, '1', { VALUE: bits(31, 0, 'rw', 'kept') }) }),
      create(p) {
        port(p)
        return {}
      },
    })
}

const place = (name: string, group: number, kind: Kind): Place => ({
  name,
  group,
  pasidWidth: kind.pasidWidth,
  pri: kind.pri,
  copies: false,
  make: commanded(kind),
})

/** The machine's devices: a group of one, of two alike, of one without ATS, of two with different PASID widths. */
export const PLACES: readonly Place[] = [
  {
    name: '0000:01:00.0',
    group: 0,
    pasidWidth: 20,
    pri: false,
    copies: true,
    make: () => dmaCopy,
  },
  place('0000:02:00.0', 1, { ats: true, pri: true, pasidWidth: 20 }),
  place('0000:02:00.1', 1, { ats: true, pri: true, pasidWidth: 20 }),
  place('0000:03:00.0', 2, { ats: false, pri: false, pasidWidth: 20 }),
  place('0000:04:00.0', 3, { ats: true, pri: true, pasidWidth: 20 }),
  place('0000:04:00.1', 3, { ats: true, pri: false, pasidWidth: 16 }),
]

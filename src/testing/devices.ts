// A device for tests: it has the capabilities that are asked for and does nothing of its own. The bench
// issues its requests.
import { bank, bits, r32 } from '../base/fields.js'
import { ats, defineDevice, msix, pasidCapability, pri, sriov } from '../pci/device-model.js'
import type { DeviceModel } from '../pci/function.js'

/** Device id of a test device's virtual functions. */
const VF_DEVICE_ID = 0x7e58

/** What a test device can do. */
export interface TestDeviceOptions {
  /** Max PASID Width, 1 to 20 bits; 0: no PASID capability. Default 20. */
  readonly pasidWidth?: number
  /** Asks for translations ahead of use and caches them. Refusals then leave no fault record. Default false. */
  readonly ats?: boolean
  /** Can ask for missing pages; needs `ats`. Default false. */
  readonly pri?: boolean
  /** Virtual functions that there can be; see `vfs` of the bench. Default none. */
  readonly vfs?: number
}

/** A device with these capabilities. */
export function testDevice(options: TestDeviceOptions = {}): DeviceModel {
  const { pasidWidth = 20, vfs = 0 } = options
  return defineDevice({
    name: 'test device',
    identity: { vendorId: 0x1234, deviceId: 0x7e57, classCode: 0x088000, revision: 1 },
    capabilities: [
      msix({ vectors: 1, bar: 2 }),
      ...(options.ats ? [ats()] : []),
      ...(pasidWidth > 0 ? [pasidCapability({ width: pasidWidth })] : []),
      ...(options.pri ? [pri({ capacity: 32 })] : []),
      ...(vfs > 0 ? [sriov({ vfs, deviceId: VF_DEVICE_ID })] : []),
    ],
    bar0: bank('test device', { SCRATCH: r32(0x00, '1', { VALUE: bits(31, 0, 'rw', 'kept') }) }),
    create: () => ({}),
  })
}

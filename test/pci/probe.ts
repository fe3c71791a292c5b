/** A device that hands its port to the test: requests of any kind, straight from a test's lines. */
import { bank, bits, r32 } from '../../src/base/fields.js'
import { msix } from '../../src/pci/capabilities/msix.js'
import type { CapabilityFactory } from '../../src/pci/capability.js'
import { type DevicePort, defineDevice } from '../../src/pci/device-model.js'
import { ats } from '../../src/pci/extended/ats.js'
import { pasidCapability } from '../../src/pci/extended/pasid.js'
import { pri } from '../../src/pci/extended/pri.js'
import { enableAll, host, TableTranslator } from './host.js'

export const ALL = [msix({ vectors: 3, bar: 2 }), ats(), pri({ capacity: 4 }), pasidCapability()]

/** A host with one probe, every enable set; `port` is the device's. */
export function probe(capabilities: readonly CapabilityFactory[] = ALL) {
  let port: DevicePort | undefined
  let resets = 0
  const writes: number[] = []
  let onWrite = () => {}
  const model = defineDevice({
    name: 'probe',
    identity: { vendorId: 0x1234, deviceId: 0xbeef, classCode: 0xff0000 },
    capabilities,
    bar0: bank('probe', { SCRATCH: r32(0, '1', { VALUE: bits(31, 0, 'rw', 'anything') }, 0x55n) }),
    create(p) {
      port = p
      return {
        onWrite: {
          SCRATCH: ({ VALUE }) => {
            writes.push(VALUE)
            onWrite()
          },
        },
        reset: () => resets++,
      }
    },
  })
  const h = host(model)
  const fn = h.functions[0]!
  enableAll(fn)
  const t = new TableTranslator()
  return {
    h,
    fn,
    t,
    bridge: h.ports[0]!,
    port: port!,
    writes,
    resets: () => resets,
    whenWritten: (f: () => void) => {
      onWrite = f
    },
    /** Configuration offset of an extended or other capability. */
    cap: (id: number, extended = true) => fn.capabilityOffset(id, extended)!,
  }
}

// A device that reads, and asks for what is missing.
import { iova, pasid as pasidOf } from '../../../src/base/addr.js'
import { bank, bits, r32, r64, u64 } from '../../../src/base/fields.js'
import { ats, defineDevice, msix, pasidCapability, pri } from '../../../src/pci/device-model.js'

/** What STATE says. */
export const WAITING = 1
export const READ = 2
export const REFUSED = 3

/** Reads PAGES pages at ADDR under PASID, asking for all of them as one group when the first is missing. */
export const asker = defineDevice({
  name: 'asker',
  identity: { vendorId: 1, deviceId: 4, classCode: 0x088000 },
  capabilities: [
    msix({ vectors: 1, bar: 2 }),
    ats(),
    pri({ capacity: 32 }),
    pasidCapability({ width: 20 }),
  ],
  bar0: bank('asker', {
    ADDR: r64(0x00, '1', { VALUE: u64(63, 0, 'rw', 'where') }),
    PASID: r32(0x08, '2', { EN: bits(31, 31, 'rw', 'tag'), ID: bits(19, 0, 'rw', 'under') }),
    PAGES: r32(0x0c, '3', { N: bits(7, 0, 'rw', 'pages of the group') }),
    STATE: r32(0x10, '4', { STATE: bits(1, 0, 'ro', 'idle, waiting, read, refused') }),
    GO: r32(0x14, '5', { GO: bits(0, 0, 'wo', 'begin') }),
  }),
  create(port, regs) {
    const run = () => {
      const tag = regs.PASID.EN ? { pasid: pasidOf(regs.PASID.ID) } : {}
      const at = iova(regs.ADDR.VALUE)
      const result = port.dma.read(at, new Uint8Array(8), tag)
      regs.STATE.STATE = result.ok ? READ : REFUSED
      if (result.ok || !result.recoverable) return
      const asked = port.dma.pageRequest(at, { pages: regs.PAGES.N || 1 }, tag, code => {
        if (code === 0) port.later(run)
        else regs.STATE.STATE = REFUSED
      })
      if (asked.ok) regs.STATE.STATE = WAITING
    }
    return { onWrite: { GO: () => port.later(run) } }
  },
})

// A reset as the kernel does it to a function: what it programmed itself is put back afterwards.
import type { IommuCore } from '../iommu/core.js'
import { PCI_COMMAND } from '../pci/ids.js'

/** Dwords of the header that a reset loses: cache line size, BARs, interrupt line; Command comes last. */
const SAVED = [0x0c, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x3c, PCI_COMMAND] as const

/** Runs `reset`, then restores the function's header, and ATS, PRI and PASID as its IOMMU driver had them. */
export function resetPreserving(core: IommuCore, bdf: number, reset: () => void): void {
  const saved = SAVED.map(at => core.config.read(bdf, at, 4))
  reset()
  SAVED.forEach((at, i) => {
    // The upper half of the Command dword is Status, where ones written clear bits.
    if (at === PCI_COMMAND) core.config.write(bdf, at, 2, saved[i]! & 0xffff)
    else core.config.write(bdf, at, 4, saved[i]!)
  })
  core.deviceDriver(bdf)?.restore(bdf)
}

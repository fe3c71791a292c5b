// DMA payload through nested translation, against a bare TypedArray.set of the same size.

import type { PciFunction } from '../src/pci/function.js'
import { type Row, ratioTo } from './harness.js'
import { GVA_HI, GVA_LO, nestedHost } from './nested-host.js'
import { nestedSmmuHost } from './nested-smmu-host.js'

const SIZES = [
  ['dma-64', 64, null],
  ['dma-4k', 4096, 0.75],
  ['dma-64k', 65536, 0.9],
] as const

export function* dmaRows(): Generator<Row> {
  yield* rowsOf('', 'nested', nestedHost())
  yield* rowsOf('smmu-', 'nested behind an SMMUv3', nestedSmmuHost())
}

function rowsOf(
  prefix: string,
  how: string,
  host: { readonly function: PciFunction; readonly pasid: number },
): Row[] {
  const busMaster = host.function.dma
  const tag = { pasid: host.pasid }
  return SIZES.map(([id, size, target]) => {
    const buffer = new Uint8Array(size)
    const from = new Uint8Array(65536 * 16).fill(7)
    const views = Array.from({ length: 16 }, (_, i) => from.subarray(i * size, (i + 1) * size))
    return ratioTo({
      id: prefix + id,
      what: `DMA read of ${size} bytes under a PASID, ${how}, 16 places in turn`,
      body: n => {
        for (let i = 0; i < n; i++)
          if (!busMaster.read(GVA_HI, (GVA_LO + (i & 15) * size) | 0, buffer, tag))
            throw new Error(`DMA refused: ${busMaster.failedReason}`)
      },
      baseline: n => {
        for (let i = 0; i < n; i++) buffer.set(views[i & 15]!)
      },
      target,
    })
  })
}

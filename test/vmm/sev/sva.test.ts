// First-stage tables of an encrypted guest that would be bound for SVA (C-26, F-2, C.4 row 18): the host masks the C-bit
// out of the root; the unit knows no C-bit, so entries that have it, or are ciphertext, end in a refusal, never in data.
import { describe, expect, it } from 'vitest'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import { MemoryKey } from '../../../src/cpu/sev/memory-key.js'
import {
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  PGTT,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../../../src/iommu/vtd/tables.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { dmaCopy } from '../../../src/pci/devices/dma-copy.js'
import { bench } from '../../../src/testing/index.js'
import { GuestPasidTable } from '../../../src/vmm/shadow-pasids.js'

const C = 1n << 47n

describe('SVA of an encrypted guest', () => {
  it('C.4 row 18: the C-bit of a root in a PASID entry is masked before it is bound', () => {
    const memory = new AddressSpace()
    memory.addRam(0, new Uint8Array(0x5000))
    const put = (at: number, entry: { readonly bytes: Uint8Array }) => memory.write(at, entry.bytes)
    put(0x1000, Object.assign(SM_ROOT_ENTRY.create(), { LP: true, LCTP: 0x2000 }))
    const context = Object.assign(SM_CONTEXT_ENTRY.create(), {
      P: true,
      PASIDE: true,
      PASIDDIRPTR: 0x3000,
      PDTS: 0,
    })
    put(0x2000 + 24 * SM_CONTEXT_ENTRY.size, context)
    put(0x3000, Object.assign(PASID_DIRECTORY_ENTRY.create(), { P: true, SMPTBLPTR: 0x4000 }))
    const entry = { P: true, PGTT: PGTT.FIRST_STAGE, FSPTPTR: Number(0x1234_5000n | C) }
    put(0x4000 + 5 * PASID_ENTRY.size, Object.assign(PASID_ENTRY.create(), entry))
    const rootOf = (bits?: number) => {
      const table = new GuestPasidTable(memory, 24, bits)
      table.root = 0x1000
      return table.entry(5)?.root
    }
    expect([rootOf(47), rootOf()]).toEqual([0x1234_5000, Number(0x1234_5000n | C)])
  })

  it('C-26 F-2 a leaf with the C-bit leads a device nowhere', () => {
    const b = bench({ iommu: 'vt-d', device: dmaCopy })
    const space = b.bind(1)
    const secret = b.page('the secret')
    space.map(0x1000n, b.page('shared'))
    space.map(0x2000n, { ...secret, gpa: secret.gpa | C })
    expect(b.dmaRead(0x1000n, { pasid: 1 })).toEqual({ text: 'shared' })
    expect(b.dmaRead(0x2000n, { pasid: 1 })).toMatchObject({ fault: expect.any(String) })
    expect(b.dmaWrite(0x2000n, 'x', { pasid: 1 })).toMatchObject({ fault: expect.any(String) })
    expect(secret.text).toBe('the secret')
  })

  it('C-26 F-2 tables that are ciphertext lead a device nowhere', () => {
    const b = bench({ iommu: 'vt-d', device: dmaCopy })
    const space = b.bind(1)
    const first = b.page('first')
    const secret = b.page('the secret')
    space.map(0x1000n, first)
    space.map(0x2000n, secret)
    expect(b.dmaRead(0x2000n, { pasid: 1 })).toEqual({ text: 'the secret' })
    // All the guest's memory below the first page is its tables, the root among them.
    const memory = new Uint8Array(secret.bytes.buffer)
    const from = secret.bytes.byteOffset - Number(secret.gpa - space.root)
    const root = memory.subarray(from, from + 4096)
    new MemoryKey(nodeCrypto, new Uint8Array(32).fill(1)).encrypt(root, from)
    space.invalidate()
    expect(b.dmaRead(0x2000n, { pasid: 1 })).toMatchObject({ fault: expect.any(String) })
    expect(b.dmaRead(0x1000n, { pasid: 1 })).toMatchObject({ fault: expect.any(String) })
    expect(secret.text).toBe('the secret')
  })
})

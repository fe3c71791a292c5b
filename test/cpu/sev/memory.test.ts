// A processor under a memory key: what the guest reads, what lies in memory, and what everybody else sees.
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { AT, SevGuest } from './guest.js'

const SHARED = 0x3_0000
const MAPPED_TWICE = 0x3_1000

/** A launched guest with code, and with some pages shared. */
function launched(code: string, ...shared: number[]): SevGuest {
  const g = new SevGuest()
  g.code(code)
  g.encryptTables(...shared)
  g.launch()
  return g
}

describe('C-23 one store of ciphertext', () => {
  it('a private write is read back by the guest, and memory holds ciphertext', () => {
    // movl $0x11223344,0x20000; mov 0x20000,%eax; out %eax,$0x10
    const g = launched('c7 04 25 00 00 02 00 44 33 22 11 8b 04 25 00 00 02 00 e7 10')
    expect(g.answer()).toBe(0x11223344)
    expect(g.view.getUint32(AT.DATA, true)).not.toBe(0x11223344)
    expect([...g.peek(AT.DATA, 8)]).toEqual([0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0])
  })

  it('a shared write is what memory holds', () => {
    // movl $0x11223344,0x30000; mov 0x30000,%eax; out %eax,$0x10
    const g = launched('c7 04 25 00 00 03 00 44 33 22 11 8b 04 25 00 00 03 00 e7 10', SHARED)
    expect(g.answer()).toBe(0x11223344)
    expect(g.view.getUint32(SHARED, true)).toBe(0x11223344)
  })

  it('one page mapped both ways in one run: written private, read shared as the ciphertext that lies there', () => {
    const g = new SevGuest()
    // movl $1,0x20000; mov 0x31000,%eax; out %eax,$0x10; movl $2,0x20000; mov 0x31000,%eax; out; mov 0x20000,%eax; out
    g.code(
      'c7 04 25 00 00 02 00 01 00 00 00 8b 04 25 00 10 03 00 e7 10 ' +
        'c7 04 25 00 00 02 00 02 00 00 00 8b 04 25 00 10 03 00 e7 10 8b 04 25 00 00 02 00 e7 10',
    )
    g.encryptTables()
    g.map(MAPPED_TWICE, BigInt(AT.DATA) | 3n)
    g.launch()
    const first = g.answer()
    expect(first).toBe(g.view.getUint32(AT.DATA, true))
    expect(first).not.toBe(1)
    const second = g.answer()
    expect(second).toBe(g.view.getUint32(AT.DATA, true))
    expect(second).not.toBe(first)
    expect(g.answer()).toBe(2)
  })

  it('written shared and read private: garbage that is the same each time, never the plaintext', () => {
    const g = new SevGuest()
    // mov 0x20000,%eax (private); movl $7,0x31000 (shared); mov 0x20000,%eax; out; mov 0x20000,%eax; out
    g.code(
      '8b 04 25 00 00 02 00 c7 04 25 00 10 03 00 07 00 00 00 8b 04 25 00 00 02 00 e7 10 8b 04 25 00 00 02 00 e7 10',
    )
    g.encryptTables()
    g.map(MAPPED_TWICE, BigInt(AT.DATA) | 3n)
    g.launch()
    const [first, again] = [g.answer(), g.answer()]
    expect(first).not.toBe(7)
    expect(again).toBe(first)
    expect(g.view.getUint32(AT.DATA, true)).toBe(7)
  })

  it('what the host writes between two runs is ciphertext to the guest, block by block', () => {
    // out %al,$0x20; mov 0x20000,%eax; out; mov 0x20010,%eax; out
    const g = launched('e6 20 8b 04 25 00 00 02 00 e7 10 8b 04 25 10 00 02 00 e7 10')
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    g.view.setUint32(AT.DATA, 0x1234, true)
    expect(g.answer()).not.toBe(0x1234)
    expect(g.answer()).toBe(0)
  })
})

describe('what is between a page and its plaintext', () => {
  it('two vCPUs see one memory', () => {
    const g = new SevGuest()
    // vCPU 0: incl 0x20000; mov 0x20000,%eax; out %eax,$0x10; again
    g.code('ff 04 25 00 00 02 00 8b 04 25 00 00 02 00 e7 10 eb ee')
    g.encryptTables()
    g.launch()
    const other = g.sys.ioctl(g.vm, uapi.KVM_CREATE_VCPU, 1)
    const page = g.sys.mmap({ fd: other, offset: 0, length: g.page.length }).bytes
    g.sys.ioctl(other, uapi.KVM_SET_SREGS, g.sregs())
    g.sys.ioctl(other, uapi.KVM_SET_REGS, g.regs())
    const second = () => {
      g.sys.ioctl(other, uapi.KVM_RUN)
      return new DataView(page.buffer, page.byteOffset + 4096).getUint32(0, true)
    }
    expect([g.answer(), second(), second(), g.answer(), second()]).toEqual([1, 2, 3, 4, 5])
    expect(g.view.getUint32(AT.DATA, true)).not.toBe(5)
    expect(g.peek(AT.DATA, 1)[0]).toBe(5)
  })

  it('private writes are in the dirty log, and pages that were only read are not', () => {
    const g = new SevGuest()
    // mov 0x21000,%eax; movl $1,0x20000; out %al,$0x20
    g.code('8b 04 25 00 10 02 00 c7 04 25 00 00 02 00 01 00 00 00 e6 20')
    g.encryptTables()
    g.launch()
    const slot = {
      slot: 0,
      guest_phys_addr: 0n,
      memory_size: BigInt(g.ram.length),
      userspace_addr: g.vaddr,
    }
    g.slot({ ...slot, flags: uapi.KVM_MEM_LOG_DIRTY_PAGES })
    g.enter()
    const bitmap = g.sys.mmap(4096)
    const log = uapi.kvm_dirty_log({ slot: 0, dirty_bitmap: bitmap.vaddr })
    g.sys.ioctl(g.vm, uapi.KVM_GET_DIRTY_LOG, log)
    const dirty = (at: number) => (bitmap.bytes[at >> 15]! >> ((at >> 12) & 7)) & 1
    expect([dirty(AT.DATA), dirty(AT.DATA + 0x1000), dirty(AT.CODE)]).toEqual([1, 0, 0])
  })

  it('code that the guest writes through the key runs as written, also in the next instruction', () => {
    const g = new SevGuest()
    // movb $0x07,0x10009 (the immediate of the next mov); mov $0,%al; out %al,$0x10
    g.code('c6 04 25 09 00 01 00 07 b0 00 e6 10')
    g.encryptTables()
    g.launch()
    expect(g.answer()).toBe(7)
  })

  it('one frame at two guest addresses is one memory under the key', () => {
    const g = new SevGuest()
    const alias = 0x50_0000
    g.slot({
      slot: 1,
      guest_phys_addr: BigInt(alias),
      memory_size: 4096n,
      userspace_addr: g.vaddr + BigInt(AT.DATA),
    })
    // movl $9,0x20000; mov 0x500000,%eax; out; movl $8,0x500000; mov 0x20000,%eax; out
    g.code(
      'c7 04 25 00 00 02 00 09 00 00 00 8b 04 25 00 00 50 00 e7 10 ' +
        'c7 04 25 00 00 50 00 08 00 00 00 8b 04 25 00 00 02 00 e7 10',
    )
    g.encryptTables()
    g.view.setBigUint64(AT.PD + 16, 0x40_0083n | (1n << 47n), true)
    g.launch()
    expect([g.answer(), g.answer()]).toEqual([9, 8])
  })

  it('ciphertext that the host moves to another page is garbage there, and right again when it comes back', () => {
    const g = new SevGuest()
    // out %al,$0x20; mov 0x21000,%eax; out %eax,$0x10; mov 0x20000,%eax; out
    g.code('e6 20 8b 04 25 00 10 02 00 e7 10 8b 04 25 00 00 02 00 e7 10')
    g.ram[AT.DATA] = 0x42
    g.encryptTables()
    g.launch()
    g.enter()
    const page = g.ram.slice(AT.DATA, AT.DATA + 4096)
    g.ram.copyWithin(AT.DATA + 4096, AT.DATA, AT.DATA + 4096)
    g.ram.fill(0, AT.DATA, AT.DATA + 4096)
    expect(g.answer()).not.toBe(0x42)
    g.ram.set(page, AT.DATA)
    expect(g.answer()).toBe(0x42)
  })

  it('marks pages as they become ciphertext and plain again, with who did it', () => {
    const g = new SevGuest()
    // movl $1,0x60000; out %al,$0x20; movl $1,0x61000; out %al,$0x20
    g.code('c7 04 25 00 00 06 00 01 00 00 00 e6 20 c7 04 25 00 10 06 00 01 00 00 00 e6 20')
    g.encryptTables()
    g.map(0x6_1000, 0x6_0003n)
    g.launch()
    const frame = g.sys.process.memory.hpaAt(g.vaddr + 0x6_0000n) / 4096
    const { pages } = g.firmware
    expect(pages.state(frame)).toBeUndefined()
    g.enter()
    expect(pages.state(frame)).toEqual({ kind: 'encrypted', asid: 1 })
    g.enter()
    expect(pages.state(frame)).toBeUndefined()
    expect(pages.history(frame).map(e => [e.state, e.cause])).toEqual([
      ['encrypted', 'SEV guest 1: a vCPU wrote it with the C-bit'],
      ['plain', 'SEV guest 1: a vCPU writes it without the C-bit'],
    ])
    expect(pages.state(g.sys.process.memory.hpaAt(g.vaddr) / 4096)).toEqual({
      kind: 'encrypted',
      asid: 1,
    })
    g.sys.munmap(g.vaddr, 4096)
    expect(pages.count).toBe(0x40 - 1)
  })
})

// Guest PASID to host PASID (vsva-uapi 3.8): what ENQCMD sends follows bind, unbind and free events, and nothing else.
import { describe, expect, it } from 'vitest'
import { type PasidHandler, PasidTranslation } from '../../../src/cpu/kvm/pasid.js'
import type { MmioTarget } from '../../../src/mem/address-space.js'
import { AT, Guest } from './guest.js'

const GPA = 0x1000_0000

describe('the translation', () => {
  it.each([
    ['the first', 0],
    ['the last of a table', 1023],
    ['the first of the second table', 1024],
    ['the last of the first directory', 0x7_ffff],
    ['the first of the second directory', 0x8_0000],
    ['the last', 0xf_ffff],
  ])('holds %s PASID apart from its neighbours', (_, guest) => {
    const t = new PasidTranslation()
    t.bind(guest, 0xabcde)
    expect(t.translate(guest)).toBe(0xabcde)
    for (const other of [guest - 1, guest + 1, guest ^ 0x8_0000, guest ^ 1024])
      expect(t.translate(other)).toBe(-1)
  })

  it('host 0 is a PASID like others', () => {
    const t = new PasidTranslation()
    t.bind(7, 0)
    expect([t.translate(7), t.translate(0)]).toEqual([0, -1])
  })

  it('free drops every guest PASID of a host one; unbind only its own pair', () => {
    const t = new PasidTranslation()
    t.bind(1, 10)
    t.bind(2, 10)
    t.bind(3, 11)
    t.unbind(3, 10)
    expect(t.count).toBe(3)
    t.free(10)
    expect([t.translate(1), t.translate(2), t.translate(3)]).toEqual([-1, -1, 11])
    t.bind(3, 12)
    t.free(11)
    expect(t.translate(3)).toBe(12)
    t.unbind(3, 12)
    expect(t.count).toBe(0)
  })

  it('ignores what is no PASID', () => {
    const t = new PasidTranslation()
    t.bind(-1, 5)
    t.bind(1 << 20, 5)
    t.bind(5, 1 << 20)
    expect([t.count, t.translate(-1), t.translate(1 << 20)]).toEqual([0, -1, -1])
  })
})

/** A guest with a portal at `GPA`; `sent` is the first word of each command. */
function portal() {
  const handlers: PasidHandler[] = []
  const events: string[] = []
  const mms: object[] = []
  const g = new Guest({
    parts: {
      pasidSource: {
        subscribe(mm, handler) {
          handlers.push(handler)
          mms.push(mm)
          return () => events.push('unsubscribed')
        },
      },
    },
  })
  const sent: number[] = []
  const device: MmioTarget = {
    read: () => 0n,
    write: () => {},
    write64: (_, bytes) =>
      sent.push(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)) > 0,
  }
  g.host.memory.addMmio(0xc000_0000, 0x1000, device, 'portal')
  const bar = g.sys.process.memory.mmap(0x1000, {
    backing: { space: g.host.memory, hpa: 0xc000_0000 },
  })
  g.slot({ slot: 1, guest_phys_addr: BigInt(GPA), memory_size: 0x1000n, userspace_addr: bar.vaddr })
  return { g, sent, events, mms, pasids: handlers[0]! }
}

/** IA32_PASID = EAX, then ENQCMD of the command at AT.DATA. */
// mov $0xd93,%ecx; xor %edx,%edx; wrmsr; mov $0x10000000,%ebx; mov $0x20000,%edx; enqcmd (%rdx),%rbx; setz %al; out %al,$0x10
const SUBMIT =
  'b9 93 0d 00 00 31 d2 0f 30 bb 00 00 00 10 ba 00 00 02 00 f2 0f 38 f8 1a 0f 94 c0 e6 10'

describe('ENQCMD', () => {
  it('sends the host PASID with PRIV clear, and nothing of the guest one', () => {
    const { g, sent, pasids } = portal()
    pasids.bind(5, 0x12345)
    g.code(SUBMIT)
    g.setRegs({ rax: 0x8000_0005n })
    expect(g.answer()).toBe(0)
    expect(sent).toEqual([0x12345])
  })

  it('E131: an unbound guest PASID faults, submits nothing, and guesses no host id', () => {
    const { g, sent } = portal()
    g.code(SUBMIT)
    g.setRegs({ rax: 0x8000_0005n })
    expect(g.trap()).toMatchObject({ vector: 13, error: 0 })
    expect(sent).toEqual([])
  })

  it.each([
    ['unbind', (p: PasidHandler) => p.unbind(5, 9)],
    ['free', (p: PasidHandler) => p.free(9)],
  ])('faults again after %s', (_, end) => {
    const { g, sent, pasids } = portal()
    pasids.bind(5, 9)
    g.code(SUBMIT)
    g.setRegs({ rax: 0x8000_0005n })
    g.answer()
    end(pasids)
    g.setRegs({ rip: BigInt(AT.CODE), rax: 0x8000_0005n })
    expect(g.trap()).toMatchObject({ vector: 13, error: 0 })
    expect(sent).toEqual([9])
  })

  it('faults while IA32_PASID is not valid', () => {
    const { g, pasids } = portal()
    pasids.bind(5, 9)
    g.code(SUBMIT)
    g.setRegs({ rax: 5n })
    expect(g.trap().vector).toBe(13)
  })

  it('ENQCMDS takes the PASID from the command, and keeps PRIV', () => {
    const { g, sent, pasids } = portal()
    pasids.bind(5, 9)
    g.view.setUint32(AT.DATA, 0x8000_0005, true)
    // mov $0x10000000,%ebx; mov $0x20000,%edx; enqcmds (%rdx),%rbx; out %al,$0x10
    g.code('bb 00 00 00 10 ba 00 00 02 00 f3 0f 38 f8 1a e6 10')
    g.answer()
    expect(sent).toEqual([0x8000_0009])
  })

  it('to memory, or to nothing, answers retry', () => {
    const { g, sent, pasids } = portal()
    pasids.bind(5, 9)
    // mov $0xd93,%ecx; xor %edx,%edx; wrmsr; mov $0x20000,%edx; mov $0x30000,%ebx; enqcmd (%rdx),%rbx; setz %al; out %al,$0x10; mov $0xe0000000,%ebx; enqcmd (%rdx),%rbx; setz %al; out %al,$0x10
    g.code(
      'b9 93 0d 00 00 31 d2 0f 30 ba 00 00 02 00 bb 00 00 03 00 f2 0f 38 f8 1a 0f 94 c0 e6 10 bb 00 00 00 e0 f2 0f 38 f8 1a 0f 94 c0 e6 10',
    )
    g.setRegs({ rax: 0x8000_0005n })
    expect([g.answer(), g.answer()]).toEqual([1, 1])
    expect(sent).toEqual([])
  })

  it("subscribes for the owner's address space, and lets go with the VM", () => {
    const { g, mms, events } = portal()
    expect(mms).toEqual([g.sys.process.mm])
    g.sys.close(g.vm)
    expect(events).toEqual([])
    g.sys.exit()
    expect(events).toEqual(['unsubscribed'])
  })

  it('is traced with guest and host PASID', () => {
    const { g, pasids } = portal()
    const seen: object[] = []
    g.host.trace.listen('kvm.enqcmd', event => seen.push(event))
    pasids.bind(5, 9)
    g.code(SUBMIT)
    g.setRegs({ rax: 0x8000_0005n })
    g.answer()
    expect(seen).toEqual([{ vcpu: 0, guest: 5, host: 9 }])
  })
})

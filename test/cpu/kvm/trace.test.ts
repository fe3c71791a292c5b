import { expect, it } from 'vitest'
import { AT, Guest } from './guest.js'

it('exits, exceptions and interrupts are told on the trace bus, in order', () => {
  const g = new Guest()
  const seen: unknown[] = []
  g.host.trace.listen('*', (event, name) => seen.push([name, event]))
  // mov $0xfee000f0,%ebx; movl $0x1ff,(%rbx); mov 0x7ffff8,%al
  g.code('bb f0 00 e0 fe c7 03 ff 01 00 00 8a 04 25 f8 ff 7f 00')
  g.view.setBigUint64(AT.PD + 8 * 3, 0n, true)
  g.enter()
  // sti; jmp .
  g.code('fb eb fe')
  g.setRegs({ rip: BigInt(AT.CODE), rsp: BigInt(AT.STACK) })
  g.signalMsi(0x41)
  g.enter()
  expect(seen).toEqual([
    ['kvm.exception', { vcpu: 0, vector: 14, error: 0, rip: 0x1_000bn, cr2: 0x7f_fff8n, cpl: 0 }],
    ['kvm.exit', { vcpu: 0, reason: 'IO', rip: 0x70e0n, address: 0x8e, write: true, size: 1 }],
    ['kvm.interrupt', { vcpu: 0, vector: 0x41, rip: 0x1_0001n }],
    ['kvm.exit', { vcpu: 0, reason: 'IO', rip: 0x7413n, address: 0xf0, write: true, size: 1 }],
  ])
})

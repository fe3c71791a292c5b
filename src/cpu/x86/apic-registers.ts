// The local APIC's register page (SDM vol. 3, 11.4.1 and the sections named in the rows): 32 bits at every 16 bytes.
// The layout is also that of KVM's `kvm_lapic_state`. What writes do is in apic.ts.

import { bank, bits, flag, r32 } from '../../base/fields.js'

const word = (access: 'rw' | 'ro', doc: string) => ({ BITS: bits(31, 0, access, doc) })
const lvt = (doc: string) => ({
  MASK: flag(16, 'rw', 'no interrupts from this source'),
  TRIGGER: flag(15, 'rw', 'level'),
  REMOTE_IRR: flag(14, 'ro', 'a level interrupt is being serviced'),
  POLARITY: flag(13, 'rw', 'active low'),
  STATUS: flag(12, 'ro', 'delivery pending; never here'),
  MODE: bits(10, 8, 'rw', '0 fixed, 2 SMI, 4 NMI, 5 INIT, 7 ExtINT'),
  VECTOR: bits(7, 0, 'rw', doc),
})
const MASKED = 0x1_0000n
const vectors = (offset: number, doc: string) => r32(offset, '11.8.4', word('ro', doc))
/** Eight registers, 32 vectors each. */
function eight<const P extends string>(prefix: P, offset: number, doc: string) {
  const registers = Array.from({ length: 8 }, (_, i) => [
    `${prefix}${i}`,
    vectors(offset + 16 * i, `${doc}: vectors ${32 * i + 31}:${32 * i}`),
  ])
  return Object.fromEntries(registers) as Record<
    `${P}${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`,
    ReturnType<typeof vectors>
  >
}

/** Registers of the local APIC, xAPIC mode. */
// biome-ignore format: table
export const LAPIC = bank('local APIC', {
  ID:        r32(0x020, '11.4.6', { ID: bits(31, 24, 'rw', 'physical destination') }),
  VERSION:   r32(0x030, '11.4.8', { MAX_LVT: bits(23, 16, 'ro', 'LVT entries less one'), VERSION: bits(7, 0, 'ro', '0x14: integrated') }, 0x5_0014n),
  TPR:       r32(0x080, '11.8.3.1', { CLASS: bits(7, 4, 'rw', 'interrupts of this class and below wait'), SUBCLASS: bits(3, 0, 'rw', 'stored; only the class is compared') }),
  APR:       r32(0x090, '11.6.2.4', { PRIORITY: bits(7, 0, 'ro', 'arbitration priority') }),
  PPR:       r32(0x0a0, '11.8.3.1', { PRIORITY: bits(7, 0, 'ro', 'the higher of TPR and the vector in service') }),
  EOI:       r32(0x0b0, '11.8.5', { ANY: bits(31, 0, 'wo', 'the service of the highest vector ends') }),
  RRD:       r32(0x0c0, '11.4.1', word('ro', 'remote read')),
  LDR:       r32(0x0d0, '11.6.2.2', { LOGICAL: bits(31, 24, 'rw', 'logical destination') }),
  DFR:       r32(0x0e0, '11.6.2.2', { MODEL: bits(31, 28, 'rw', '15 flat, 0 cluster'), ONES: bits(27, 0, 'ro', 'all ones') }, 0xffff_ffffn),
  SVR:       r32(0x0f0, '11.9', { FOCUS: flag(9, 'rw', 'focus processor checking; stored only'), ENABLE: flag(8, 'rw', 'software enable'), VECTOR: bits(7, 0, 'rw', 'spurious vector') }, 0xffn),
  ...eight('ISR', 0x100, 'in service'),
  ...eight('TMR', 0x180, 'trigger mode'),
  ...eight('IRR', 0x200, 'requested'),
  ESR:       r32(0x280, '11.5.3', { ILLEGAL_REGISTER: flag(7, 'ro', 'an access to no register'), RECEIVE_ILLEGAL: flag(6, 'ro', 'vector below 16 received'), SEND_ILLEGAL: flag(5, 'ro', 'vector below 16 sent') }),
  LVT_CMCI:  r32(0x2f0, '11.5.1', lvt('corrected machine checks; stored only'), MASKED),
  ICR_LOW:   r32(0x300, '11.6.1', {
    SHORTHAND: bits(19, 18, 'rw', '0 by destination, 1 self, 2 all, 3 all but self'),
    TRIGGER:   flag(15, 'rw', 'level'),
    LEVEL:     flag(14, 'rw', 'assert'),
    STATUS:    flag(12, 'ro', 'send pending; never here'),
    LOGICAL:   flag(11, 'rw', 'destination mode'),
    MODE:      bits(10, 8, 'rw', '0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 6 start-up'),
    VECTOR:    bits(7, 0, 'rw', 'vector'),
  }),
  ICR_HIGH:  r32(0x310, '11.6.1', { DESTINATION: bits(31, 24, 'rw', 'APIC id or logical destination') }),
  LVT_TIMER: r32(0x320, '11.5.4', {
    PERIODIC: flag(17, 'rw', 'starts again at zero'),
    MASK:     flag(16, 'rw', 'counts without interrupts'),
    STATUS:   flag(12, 'ro', 'delivery pending; never here'),
    VECTOR:   bits(7, 0, 'rw', 'vector'),
  }, MASKED),
  LVT_THERMAL: r32(0x330, '11.5.1', lvt('thermal sensor; stored only'), MASKED),
  LVT_PERF:  r32(0x340, '11.5.1', lvt('performance counters; stored only'), MASKED),
  LVT_LINT0: r32(0x350, '11.5.1', lvt('pin 0; stored only'), MASKED),
  LVT_LINT1: r32(0x360, '11.5.1', lvt('pin 1; stored only'), MASKED),
  LVT_ERROR: r32(0x370, '11.5.3', { MASK: flag(16, 'rw', 'no error interrupts'), STATUS: flag(12, 'ro', 'delivery pending; never here'), VECTOR: bits(7, 0, 'rw', 'vector') }, MASKED),
  TMICT:     r32(0x380, '11.5.4', { COUNT: bits(31, 0, 'rw', 'writing starts the timer; zero stops it') }),
  TMCCT:     r32(0x390, '11.5.4', { COUNT: bits(31, 0, 'ro', 'what is left') }),
  TDCR:      r32(0x3e0, '11.5.4', { DIVIDE_HIGH: flag(3, 'rw', 'with bits 1:0: 2, 4, 8, 16, 32, 64, 128, 1'), DIVIDE: bits(1, 0, 'rw', 'with bit 3') }),
}, 0x400)

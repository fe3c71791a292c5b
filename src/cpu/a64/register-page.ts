// The system register table as a page of documentation: docs/registers/a64-system-registers.md.

import { hex } from '../../base/addr.js'
import {
  type RegisterGroup,
  SYSTEM_REGISTERS,
  type SystemRegisterRow,
} from './system-register-table.js'

/** What may take an access away, by group: EL1 from EL0, then the hypervisor. */
// biome-ignore format: table
const TAKEN: Readonly<Record<RegisterGroup, string>> = {
  '':           '',
  vm:           'HCR_EL2.TVM, TRVM',
  id1:          'HCR_EL2.TID1',
  id2:          'HCR_EL2.TID2',
  id3:          'HCR_EL2.TID3',
  ctr:          'EL0: SCTLR_EL1.UCT; HCR_EL2.TID2',
  actlr:        'HCR_EL2.TACR',
  'fp-control': 'CPTR_EL2.TCPAC',
  debug:        'MDCR_EL2.TDA',
  dcc:          'EL0: MDSCR_EL1.TDCC; MDCR_EL2.TDA',
  'os-debug':   'MDCR_EL2.TDOSA',
  'debug-rom':  'MDCR_EL2.TDRA',
  daif:         'EL0: SCTLR_EL1.UMA',
  'cnt-frq':    'EL0: CNTKCTL_EL1.EL0PCTEN, EL0VCTEN',
  'cnt-pct':    'EL0: CNTKCTL_EL1.EL0PCTEN',
  'cnt-vct':    'EL0: CNTKCTL_EL1.EL0VCTEN',
  'cnt-p':      'EL0: CNTKCTL_EL1.EL0PTEN',
  'cnt-v':      'EL0: CNTKCTL_EL1.EL0VTEN',
}

const encoding = (key: number): string =>
  [key >> 14, (key >> 11) & 7, (key >> 7) & 15, (key >> 3) & 15, key & 7].join(', ')

function line(name: string, r: SystemRegisterRow): string {
  const value = r.elsewhere ? 'timer or GIC' : hex(r.reset)
  const writable = r.elsewhere ? '' : r.mask === 0n ? 'none' : hex(r.mask)
  const access = [r.el1, r.el0].map(a => `\`${a}\``).join(' | ')
  return `| ${name} | ${encoding(r.key)} | ${access} | ${value} | ${writable} | ${TAKEN[r.group]} |`
}

/** Every system register but the unnamed identification ones. */
export function systemRegisterPage(): string {
  const rows = [...SYSTEM_REGISTERS].filter(([name]) => !name.startsWith('ID_3_'))
  return `${[
    '# Registers: A64 system registers',
    '',
    `${rows.length} registers of EL0 and EL1 (DDI 0487 D24). Generated from the table in the source by \`npm run docs:registers\`; do not edit.`,
    '`--`: UNDEFINED at that level, `r-`: a write is, `-w`: a read is. Bits that cannot be written keep their reset value. Other identification',
    'registers (3, 0, 0, 1 to 7, any) read as zero; every other encoding is UNDEFINED. The last column names what takes an access away.',
    '',
    '| Register | op0, op1, CRn, CRm, op2 | EL1 | EL0 | Reset | Writable | Taken by |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...rows.map(([name, r]) => line(name, r)),
  ].join('\n')}\n`
}

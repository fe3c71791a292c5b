/**
 * An outsider reads our configuration space: `lspci -vv -F` of pciutils, live where the program is
 * installed, and as a committed answer everywhere. `UPDATE_GOLDEN=1 npx vitest run
 * test/pci/lspci.test.ts` writes the committed files again; the first line says which version answered.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { decodeConfig } from '../../src/pci/config-image.js'
import { configImages, describeText, dumpText, listText } from '../../src/pci/config-text.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { svaEngine } from '../../src/pci/devices/sva-engine.js'
import { enableAll, host } from './host.js'

const golden = join(import.meta.dirname, '../golden/pci')
const DUMP = join(golden, 'machine.xxxx.txt')
const ANSWER = join(golden, 'machine.lspci-vv.txt')
const LISTING = join(golden, 'machine.listing.txt')

function machine() {
  const h = host(dmaCopy, svaEngine)
  enableAll(h.functions[1]!)
  return configImages(h.complex.nodes())
}

const version = () => {
  const r = spawnSync('lspci', ['--version'], { encoding: 'utf8' })
  return r.status === 0 ? r.stdout.trim() : undefined
}

function askLspci(dump: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'lspci-'))
  try {
    writeFileSync(join(dir, 'dump'), dump)
    return execFileSync('lspci', ['-F', join(dir, 'dump'), '-vv', '-n', '-D'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
  } finally {
    rmSync(dir, { recursive: true })
  }
}

const dump = dumpText(machine(), 4096)
if (process.env['UPDATE_GOLDEN']) {
  mkdirSync(golden, { recursive: true })
  writeFileSync(DUMP, dump)
  writeFileSync(ANSWER, `# ${version()}\n${askLspci(dump)}`)
  writeFileSync(LISTING, describeText(machine()))
}

/** What lspci says of one function, as the facts that we decode ourselves. */
function readAnswer(text: string) {
  const value = (re: RegExp) => Number.parseInt(re.exec(text)?.[1] ?? 'NaN', 16)
  const sign = (re: RegExp) => re.exec(text)?.[1] === '+'
  const bars = [...text.matchAll(/Region (\d): Memory at ([0-9a-f]+) \((32|64)-bit, (non-)?pre/g)]
  const buses = /Bus: primary=(..), secondary=(..), subordinate=(..)/.exec(text)
  const caps = [...text.matchAll(/Capabilities: \[([0-9a-f]+)(?: v(\d))?\]/g)]
  return {
    id: /^\S+ ([0-9a-f]{4}): ([0-9a-f]{4}:[0-9a-f]{4})/.exec(text)?.slice(1),
    memoryEnable: sign(/Control: .*?Mem([+-])/),
    busMaster: sign(/Control: .*?BusMaster([+-])/),
    bars: bars.map(b => [Number(b[1]), Number.parseInt(b[2]!, 16), b[3] === '64', !b[4]]),
    buses: buses?.slice(1).map(b => Number.parseInt(b, 16)),
    capabilities: caps.map(c => [Number.parseInt(c[1]!, 16), c[2] ? Number(c[2]) : undefined]),
    flr: sign(/FLReset([+-])/),
    prefix: sign(/EETLPPrefix([+-])/),
    payload: Number(/MaxPayload (\d+) bytes, PhantFunc/.exec(text)?.[1]),
    vectors: Number(/MSI-X: Enable[+-] Count=(\d+)/.exec(text)?.[1]),
    msixTable: /Vector table: BAR=(\d) offset=([0-9a-f]+)/.exec(text)?.slice(1),
    pba: /PBA: BAR=(\d) offset=([0-9a-f]+)/.exec(text)?.slice(1),
    ats: sign(/ATSCtl:\s+Enable([+-])/),
    priEnable: sign(/PRICtl: Enable([+-])/),
    priStopped: sign(/Stopped([+-])/),
    priCapacity: value(/Page Request Capacity: ([0-9a-f]+)/),
    priAllocation: value(/Page Request Allocation: ([0-9a-f]+)/),
    pasidWidth: value(/Max PASID Width: ([0-9a-f]+)/),
    pasid: /PASIDCtl: Enable(.) Exec(.) Priv(.)/.exec(text)?.slice(1).join(''),
    acs: /ACSCap:\s+(.*)/.exec(text)?.[1],
  }
}

/** The same of our own decoding. */
function ourAnswer(index: number) {
  const f = decodeConfig(machine()[index]!)
  const cap = (id: number, extended = false) =>
    f.capabilities.find(c => c.id === id && c.extended === extended)?.values
  const hex8 = (v: number) => v.toString(16).padStart(8, '0')
  const [express, msix] = [cap(0x10)!, cap(0x11)]
  const [ats, pri, pasid, acs] = [0x0f, 0x13, 0x1b, 0x0d].map(id => cap(id, true))
  const four = (v: number) => v.toString(16).padStart(4, '0')
  const plus = (v: number | undefined) => (v ? '+' : '-')
  const names = [
    'SrcValid',
    'TransBlk',
    'ReqRedir',
    'CmpltRedir',
    'UpstreamFwd',
    'EgressCtrl',
    'DirectTrans',
  ]
  return {
    id: [four(f.classCode >>> 8), `${four(f.vendorId)}:${four(f.deviceId)}`],
    memoryEnable: f.memoryEnable,
    busMaster: f.busMaster,
    bars: f.bars.map(b => [b.index, b.address, b.wide, b.prefetchable]),
    buses: f.bridge && [f.bridge.primary, f.bridge.secondary, f.bridge.subordinate],
    capabilities: f.capabilities.map(c => [c.offset, c.version]),
    flr: express['Function_Level_Reset'] === 1,
    prefix: express['End_End_TLP_Prefix_Supported'] === 1,
    payload: express['Max_Payload_Size_Supported'],
    vectors: msix?.['Vectors'] ?? Number.NaN,
    msixTable: msix && [String(msix['Table_BAR']), hex8(msix['Table_Offset']!)],
    pba: msix && [String(msix['PBA_BAR']), hex8(msix['PBA_Offset']!)],
    ats: ats?.['Enable'] === 1,
    priEnable: pri?.['Enable'] === 1,
    priStopped: pri?.['Stopped'] === 1,
    priCapacity: pri?.['Outstanding_Capacity'] ?? Number.NaN,
    priAllocation: pri?.['Outstanding_Allocation'] ?? Number.NaN,
    pasidWidth: pasid?.['Max_PASID_Width'] ?? Number.NaN,
    pasid:
      pasid &&
      plus(pasid['PASID_Enable']) +
        plus(pasid['Execute_Permission_Enable']) +
        plus(pasid['Privileged_Mode_Enable']),
    acs: acs && names.map((n, i) => `${n}${plus((acs['Capability']! >> i) & 1)}`).join(' '),
  }
}

const functions = machine().length

function compare(answer: string): void {
  const blocks = answer
    .replace(/^#.*\n/, '')
    .trim()
    .split(/\n\n/)
  expect(blocks.length).toBe(functions)
  blocks.forEach((block, i) => {
    expect(readAnswer(block), block).toEqual(ourAnswer(i))
    expect(block).not.toMatch(/unknown|corrupt|\?\?|<chain/i)
  })
}

describe('configuration space, read by lspci', () => {
  it('is dumped as the committed dump has it', () => {
    expect(dump).toBe(readFileSync(DUMP, 'utf8'))
  })

  it('means to the committed answer of lspci what it means to us', () => {
    compare(readFileSync(ANSWER, 'utf8'))
  })

  it('means the same to an installed lspci', () => {
    const installed = version()
    // Without the program the committed answer stands for it.
    compare(installed ? askLspci(dump) : readFileSync(ANSWER, 'utf8'))
  })

  it('is listed as the committed listing has it', () => {
    expect(describeText(machine())).toBe(readFileSync(LISTING, 'utf8'))
    expect(listText(machine()).trim().split('\n').length).toBe(functions)
  })

  it.each([
    [64, 4],
    [256, 16],
    [4096, 256],
  ] as const)('a dump of %i bytes has %i lines a function', (length, lines) => {
    const text = dumpText(machine(), length)
    expect(text.split('\n').filter(l => /^[0-9a-f]{2,3}: /.test(l)).length).toBe(lines * functions)
  })
})

describe('decoding of hostile bytes', () => {
  it('ends on chains that loop', () => {
    const bytes = new Uint8Array(4096)
    bytes[6] = 0x10
    bytes[0x34] = 0x40
    bytes.set([0x11, 0x44], 0x40)
    bytes.set([0x01, 0x40], 0x44)
    bytes.set([0x0f, 0, 0x01, 0x10], 0x100)
    expect(decodeConfig({ bdf: 0, bytes }).capabilities.map(c => c.offset)).toEqual([
      0x40, 0x44, 0x100,
    ])
  })

  it('survives 500 random images, seed 7', () => {
    let state = 7
    for (let i = 0; i < 500; i++) {
      const bytes = new Uint8Array(4096).map(() => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) | 0
        return state >>> 16
      })
      const text = describeText([{ bdf: i, bytes }])
      expect(text.length).toBeGreaterThan(40)
    }
  })
})

// Commands of devices: DMA with and without PASID, translations ahead of use, page requests; and the user's responses.

import fc from 'fast-check'
import { pasid as asPasid, iova } from '../../src/base/addr.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import {
  IOMMU_PAGE_RESP_PASID_VALID,
  IOMMU_PAGE_RESP_VERSION_1,
  iommu_page_response,
} from '../../src/uapi.js'
import { type Fate, fate, remember } from '../model/dma.js'
import { type Device, GUEST_PAGE, type Page, type PageRequest, type State } from '../model/state.js'
import { type DeviceRequest, Disagreement, type Rig, TAG_AT } from '../rig.js'
import {
  boundOn,
  descriptor,
  deviceOf,
  type FuzzCommand,
  INVALID,
  settleAll,
  step,
} from './step.js'

const SUCCESS = 0
const FAILURE = 2
/** What a device sees of each code. */
const SEEN = [0, 1, 15]
/** The address of a page's tag, in the container's addresses or, under a PASID, in the guest's. */
const at = (pasid: number | undefined, page: number) =>
  BigInt(pasid === undefined ? page : GUEST_PAGE + page) * 4096n + BigInt(TAG_AT)

/** Tags of writes begin here; those of new pages are below. */
const WRITTEN = 1_000_000

const byHand = (d: Device) => !d.facts.copies
/** What a command draws for a PASID: undefined for no prefix. */
type Drawn = number | undefined

const tagOf = (pasid: number | undefined) => (pasid === undefined ? {} : { pasid: asPasid(pasid) })
const place = (pasid: number | undefined, page: number) =>
  `${pasid === undefined ? 'no PASID' : `PASID ${pasid}`}, page ${page}`

/** What a request came to. */
type DmaResult = { readonly ok: true } | { readonly ok: false; readonly reason: string }
const FAILED = { ok: false, reason: 'FAULT' } as const

/** Whether a request went through, checked against its fate. */
function settled(rig: Rig, what: string, result: DmaResult, { pages, refused }: Fate): void {
  const { ok } = result
  rig.say(`${what}: ${ok ? 'done' : result.reason}`)
  if (ok && pages.length === 0) throw new Disagreement('the model forbids this DMA')
  if (!ok && !refused) throw new Disagreement('the model allows this DMA')
}

/** Checks that a tag came from a page that it may come from. */
function checkRead(tag: number, pages: readonly Page[]): void {
  if (!pages.some(p => p.tag === tag))
    throw new Disagreement(
      `read ${tag}, where the model says ${pages.map(p => p.tag).join(' or ')}`,
    )
}

/** Finds the page that took a tag, and writes it down. */
function checkWrite(rig: Rig, tag: number, pages: readonly Page[]): void {
  const hit = pages.find(p => rig.tag(p) === tag)
  if (hit === undefined) throw new Disagreement('the write reached none of the pages it may reach')
  hit.tag = tag
}

const dma = (n: number, drawn: Drawn, page: number, write: boolean) => {
  const verb = write ? 'write' : 'read'
  return step(
    `${verb}(device ${n}, ${place(drawn, page)})`,
    s => deviceOf(s, n, byHand, drawn !== undefined),
    (s, rig, d) =>
      transfer(s, rig, d, drawn === undefined ? undefined : boundOn(s, d, drawn), page, write),
  )
}

/** What the last DMA did, once more. */
const again = (write: boolean) =>
  step(
    `again(${write ? 'write' : 'read'})`,
    s => s.used,
    (s, rig, { device, pasid, page }) => transfer(s, rig, device, pasid, page, write),
  )

function transfer(
  s: State,
  rig: Rig,
  d: Device,
  pasid: number | undefined,
  page: number,
  write: boolean,
): void {
  const verb = write ? 'write' : 'read'
  const allowed = fate(s, d, pasid, page, write)
  const port = rig.ports[d.index]!.dma
  const data = new Uint8Array(4)
  const view = new DataView(data.buffer)
  const tag = WRITTEN + s.made.tags++
  if (write) view.setUint32(0, tag, true)
  const where = iova(at(pasid, page))
  const result = write
    ? port.write(where, data, tagOf(pasid))
    : port.read(where, data, tagOf(pasid))
  settled(rig, `${d.facts.name} ${verb}, ${place(pasid, page)}`, result, allowed)
  const { ok } = result
  if (ok && write) checkWrite(rig, tag, allowed.pages)
  else if (ok) checkRead(view.getUint32(0, true), allowed.pages)
  remember(s, d, pasid, page)
  if (ok) s.used = { device: d, pasid, page }
}

/** A translation ahead of use (ATS). */
const translate = (n: number, drawn: Drawn, page: number, write: boolean) =>
  step(
    `translate(device ${n}, ${place(drawn, page)}, ${write ? 'write' : 'read'})`,
    s => deviceOf(s, n, byHand, drawn !== undefined),
    (s, rig, d) => {
      const pasid = drawn === undefined ? undefined : boundOn(s, d, drawn)
      const allowed = fate(s, d, pasid, page, write)
      const port = rig.ports[d.index]!.dma
      const result = port.translate(iova(at(pasid, page)), { write }, tagOf(pasid))
      const what = result.ok ? 'done' : result.reason
      rig.say(`${d.facts.name} translate, ${place(pasid, page)}: ${what}`)
      if (result.ok && allowed.pages.length === 0) throw new Disagreement('the model forbids this')
      remember(s, d, pasid, page)
    },
  )

/** dma-copy, told through its registers by a process that has it open. */
const copy = (of: number, n: number, drawn: Drawn, from: number, to: number) =>
  step(
    `copy(${of}, ${n}, ${place(drawn, from)} to ${to})`,
    s => descriptor(s, of, n, 'device', f => f.device!.facts.copies),
    (s, rig, { process: p, fd, file }) => {
      const d = file.device!
      // What waits runs before the copy does.
      settleAll(s, rig)
      const pasid = drawn === undefined ? undefined : boundOn(s, d, drawn)
      const read = fate(s, d, pasid, from, false)
      const write = fate(s, d, pasid, to, true)
      const { SRC, DST, LEN, PASID, CTRL, STATUS } = dmaCopy.bar0
      const u32 = (v: number) => new Uint8Array(Uint32Array.of(v).buffer)
      const u64 = (v: bigint) => new Uint8Array(BigUint64Array.of(v).buffer)
      const poke = (r: { offset: number }, bytes: Uint8Array) =>
        rig.poke(p.id, fd, 0, r.offset, bytes)
      poke(STATUS, u32(3))
      poke(SRC, u64(at(pasid, from)))
      poke(DST, u64(at(pasid, to)))
      poke(LEN, u32(4))
      poke(PASID, u32(pasid === undefined ? 0 : (0x8000_0000 | pasid) >>> 0))
      poke(CTRL, u32(1))
      rig.machine.settle()
      const status = rig.region(p.id, fd, 0, STATUS.offset, 4).getUint32(0, true)
      if ((status & 1) === 0) throw new Disagreement('the copy did not end')
      const ok = (status & 2) === 0
      settled(rig, `${d.facts.name} copies, ${place(pasid, from)} to ${to}`, ok ? { ok } : FAILED, {
        pages: read.pages.length > 0 ? write.pages : [],
        refused: read.refused || write.refused,
      })
      if (ok) checkCopy(rig, read.pages, write.pages)
      remember(s, d, pasid, from)
      remember(s, d, pasid, to)
    },
  )

// A copy writes a tag that some page has already: where more than one page may be meant, any that fits will do.
function checkCopy(rig: Rig, from: readonly Page[], to: readonly Page[]): void {
  const tags = from.map(p => p.tag)
  const hit = to.find(p => rig.tag(p) !== p.tag) ?? to.find(p => tags.includes(p.tag))
  if (hit === undefined) throw new Disagreement('the copy reached none of the pages it may reach')
  const tag = rig.tag(hit)
  if (!tags.includes(tag))
    throw new Disagreement(`copied ${tag}, where the model says ${tags.join(' or ')}`)
  hit.tag = tag
}

/** A page request; `wait` lets it arrive before anything else happens. */
const pageRequest = (n: number, drawn: number, page: number, wait: boolean) =>
  step(
    `pageRequest(device ${n}, ${place(drawn, page)}${wait ? '' : ', in flight'})`,
    s => {
      const d = deviceOf(s, n, x => x.facts.pri, true)
      return d && d.requests.length < 20 ? d : undefined
    },
    (s, rig, d) => {
      const pasid = boundOn(s, d, drawn)
      const real: DeviceRequest = { device: d.index, code: undefined, group: undefined }
      const answered = (code: number) => {
        if (real.code !== undefined) throw new Disagreement('a page request was answered twice')
        real.code = code
      }
      const sent = rig.ports[d.index]!.dma.pageRequest(
        iova(at(pasid, page)),
        {},
        tagOf(pasid),
        answered,
      )
      const what = sent.ok ? 'sent' : sent.reason
      rig.say(`${d.facts.name} page request, ${place(pasid, page)}: ${what}`)
      const attached = d.group.container?.driver !== undefined
      const expected = attached ? (d.stopped ? 'failed' : 'sent') : 'disabled'
      if (what !== expected) throw new Disagreement(`the model says ${expected}`)
      if (!sent.ok) return
      const request: PageRequest = {
        pasid,
        page,
        state: 'sent',
        // Group indices begin anew after a reset: an answer to an old request may meet a new one.
        disturbed: s.pasids.get(pasid)?.pending === true || d.requests.some(r => r.disturbed),
        // Without a binding the IOMMU refuses it on the spot.
        answer: s.pasids.get(pasid)?.bindings.has(d) ? undefined : INVALID,
      }
      d.requests.push(request)
      rig.requests.set(request, real)
      if (wait) settleAll(s, rig)
    },
  )

/** The user answers a request it has read; a `code` of 3, or another PASID, answers nothing. */
const respond = (of: number, n: number, which: number, code: number, wrongPasid: boolean) =>
  step(
    `respond(${of}, ${n}, request ${which}, code ${code}${wrongPasid ? ', wrong PASID' : ''})`,
    s => descriptor(s, of, n, 'device', f => f.device!.requests.length > 0 && f.device!.delivers),
    (s, rig, { process: p, fd, file }) => {
      const d = file.device!
      settleAll(s, rig)
      const waiting = d.requests.filter(r => r.state === 'waiting' && !r.disturbed)
      rig.readFaults(p.id, fd, d.index)
      for (const r of waiting) {
        const real = rig.requests.get(r)!
        real.group ??= rig.takeRead(d.index, r.pasid, r.page)
        if (real.group === undefined) throw new Disagreement('a page request is not in the ring')
      }
      if (waiting.length === 0) return
      const r = waiting[which % waiting.length]!
      const response = iommu_page_response({
        version: IOMMU_PAGE_RESP_VERSION_1,
        flags: IOMMU_PAGE_RESP_PASID_VALID,
        pasid: wrongPasid ? r.pasid + 1 : r.pasid,
        grpid: rig.requests.get(r)!.group!,
        code,
      })
      rig.say(`process ${p.id}: responds ${code} to PASID ${response.pasid}, page ${r.page}`)
      rig.respond(p.id, fd, response.bytes)
      if (code <= FAILURE && !wrongPasid) answer(d, r, code)
      settleAll(s, rig)
    },
  )

function answer(d: Device, r: PageRequest, code: number): void {
  r.state = 'over'
  r.answer = SEEN[code]
  if (code !== FAILURE) return
  // The device stops, and gives up what it asked for before. The user's copies still wait.
  d.stopped = true
  for (const other of d.requests) if (other !== r) other.disturbed = true
}

const of = fc.nat({ max: 3 })
const nth = fc.nat({ max: 3 })
const device = fc.nat({ max: 8 })
const page = fc.oneof(
  { weight: 3, arbitrary: fc.nat({ max: 3 }) },
  { weight: 1, arbitrary: fc.nat({ max: 24 }) },
)
const pasid = fc.nat({ max: 8 })
const maybePasid = fc.oneof(
  { weight: 3, arbitrary: pasid },
  { weight: 1, arbitrary: fc.constant(undefined) },
)
const code = fc.constantFrom(SUCCESS, SUCCESS, INVALID, FAILURE, 3)
const { tuple, boolean } = fc

/** Commands, and how often each is drawn. */
export const dmaCommands: { weight: number; arbitrary: fc.Arbitrary<FuzzCommand> }[] = [
  { weight: 9, arbitrary: tuple(device, maybePasid, page, boolean()).map(a => dma(...a)) },
  { weight: 12, arbitrary: boolean().map(again) },
  { weight: 3, arbitrary: tuple(device, maybePasid, page, boolean()).map(a => translate(...a)) },
  { weight: 3, arbitrary: tuple(of, nth, maybePasid, page, page).map(a => copy(...a)) },
  { weight: 4, arbitrary: tuple(device, pasid, page, boolean()).map(a => pageRequest(...a)) },
  { weight: 3, arbitrary: tuple(of, nth, nth, code, boolean()).map(a => respond(...a)) },
]

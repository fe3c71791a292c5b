// The rules of files: open, close, containers, groups and devices, processes. Each call has a function that says
// what it may answer and one that does it.

import { type Allowed, check, OK } from './outcome.js'
import {
  CAPACITY,
  type Container,
  type Context,
  type Device,
  type File,
  type Group,
  type Page,
  type Pasid,
  type Process,
  QUOTA,
  type State,
} from './state.js'

/** IOMMU types. */
export const TYPE1 = 1
export const TYPE1_V2 = 3
export const NESTING = 6

/** A page with its content. */
export function makePage(s: State, tag: number, entries?: ReadonlyMap<number, number>): Page {
  return { id: s.made.pages++, tag, entries: new Map(entries) }
}

/** A process with that memory and no files. */
export function spawn(s: State, memory: readonly Page[]): Process {
  const p: Process = {
    id: s.processes.length,
    alive: true,
    fds: new Map(),
    pages: memory,
    protection: 'rw',
    locked: 0,
  }
  s.processes.push(p)
  return p
}

/** A child: the same files, the pages copied. */
export function fork(s: State, parent: Process): Process {
  const memory = parent.pages.map(p => makePage(s, p.tag, p.entries))
  const child = spawn(s, memory)
  child.protection = parent.protection
  for (const [fd, file] of parent.fds) {
    child.fds.set(fd, file)
    file.references++
  }
  return child
}

/** Ends a process: memory first, then files, lowest descriptor first. */
export function exit(s: State, p: Process): void {
  p.alive = false
  p.protection = 'none'
  for (const fd of [...p.fds.keys()].sort((a, b) => a - b)) close(s, p, fd)
}

/** Enters a file that was opened. */
export function install(p: Process, fd: number, file: Omit<File, 'references'>): void {
  if (p.fds.has(fd)) throw new Error(`descriptor ${fd} was in use`)
  p.fds.set(fd, { ...file, references: 1 })
}

export function close(s: State, p: Process, fd: number): void {
  const file = p.fds.get(fd)!
  p.fds.delete(fd)
  if (--file.references > 0) return
  if (file.group) {
    file.group.open = false
    leave(s, file.group)
  }
  if (file.device) closeDevice(s, file.device)
}

/** A new container. */
export function container(s: State): Container {
  const c: Container = { id: s.containers.size, groups: [], driver: undefined }
  s.containers.add(c)
  return c
}

export const mayOpenGroup = (g: Group): Allowed =>
  check([g.open || g.container !== undefined, 'EBUSY'])

/** `file` is what the descriptor names. A nesting container takes one group. */
export const maySetContainer = (g: Group, file: File | undefined): Allowed =>
  check(
    [g.users > 0, 'EINVAL'],
    [file === undefined, 'EBADF'],
    [!file?.container, 'EINVAL'],
    [file?.container?.driver?.type === NESTING, 'EINVAL'],
  )

export function setContainer(g: Group, c: Container): void {
  g.container = c
  g.users = 1
  c.groups.push(g)
}

export const maySetIommu = (s: State, c: Container, type: number, by: Process): Allowed => {
  if (c.groups.length === 0 || c.driver !== undefined) return ['EINVAL']
  if (type !== TYPE1 && type !== TYPE1_V2 && type !== NESTING) return ['ENODEV']
  if (type !== NESTING) return OK
  if (s.contexts.has(by) || roomForContext(s)) return c.groups.length > 1 ? ['EINVAL'] : OK
  return ['ENOSPC']
}

export function setIommu(s: State, c: Container, type: number, by: Process): void {
  c.driver = { type, mappings: [], context: type === NESTING ? useContext(s, by) : undefined }
}

export const mayUnset = (g: Group): Allowed =>
  check([g.users === 0, 'EINVAL'], [g.users > 1, 'EBUSY'])

/** One user of a group less; the last one takes it out of its container. */
export function leave(s: State, g: Group): void {
  if (g.users === 0 || --g.users > 0) return
  const c = g.container!
  g.container = undefined
  detach(s, c, g)
  c.groups.splice(c.groups.indexOf(g), 1)
  if (c.groups.length === 0) c.driver = undefined
}

export const mayOpenDevice = (g: Group, d: Device): Allowed =>
  check([g.users === 0 || !g.container?.driver, 'EINVAL'], [d.group !== g, 'ENODEV'])

export function openDevice(g: Group, d: Device, regions: boolean): void {
  g.users++
  if (d.opens++ > 0) return
  d.master = false
  d.delivers = regions && g.container!.driver!.type === NESTING
  reset(d)
}

/** A function-level reset: the device forgets its requests; what the kernel programmed is put back. */
export function reset(d: Device): void {
  d.stopped = false
  for (const r of d.requests) r.disturbed = true
}

function closeDevice(s: State, d: Device): void {
  if (--d.opens === 0) {
    d.master = false
    d.delivers = false
    disturb(d)
    reset(d)
  }
  leave(s, d.group)
}

/** What waits of a device, or of one PASID on it, is answered by the kernel. */
export function disturb(d: Device, pasid?: number): void {
  for (const r of d.requests)
    if (pasid === undefined || r.pasid === pasid) {
      r.disturbed = true
      if (r.state !== 'sent') r.state = 'over'
    }
}

const roomForContext = (s: State): boolean =>
  CAPACITY - Math.floor(CAPACITY / 2) - s.contexts.size * QUOTA >= QUOTA

function useContext(s: State, p: Process): Context {
  let context = s.contexts.get(p)
  if (context === undefined) s.contexts.set(p, (context = { process: p, references: 0 }))
  context.references++
  return context
}

// Bindings first, then the domain, then the PASIDs of the process.
function detach(s: State, c: Container, g: Group): void {
  const driver = c.driver
  if (driver === undefined) return
  for (const d of g.devices) {
    for (const p of [...s.pasids.values()]) unbind(s, p, d)
    disturb(d)
  }
  if (c.groups.length > 1) return
  for (const m of driver.mappings) m.owner.locked -= m.pages.length
  driver.mappings = []
  s.remembered.delete(c)
  const { context } = driver
  if (context === undefined || --context.references > 0) return
  s.contexts.delete(context.process)
  for (const p of [...s.pasids.values()]) if (p.context === context) free(s, p)
}

/** Takes a binding away; the last one of a PASID that was freed lets it go. */
export function unbind(s: State, p: Pasid, d: Device): void {
  const binding = p.bindings.get(d)
  if (binding === undefined) return
  p.bindings.delete(d)
  disturb(d, p.id)
  forget(s, binding.container, p.id)
  if (![...p.bindings.values()].some(b => b.named)) p.guest = undefined
  if (p.bindings.size === 0 && p.pending) s.pasids.delete(p.id)
}

/** Gives a PASID up: at once when nothing uses it, later otherwise. */
export function free(s: State, p: Pasid): void {
  if (p.bindings.size === 0) s.pasids.delete(p.id)
  else p.pending = true
  // Its page requests are answered when the bindings go.
  for (const d of p.bindings.keys())
    for (const r of d.requests) if (r.pasid === p.id) r.disturbed = true
}

/** No cache remembers this PASID, or this page of it, in that container any more. */
export function forget(s: State, c: Container, pasid: number, page?: number): void {
  const of = s.remembered.get(c)
  if (of === undefined) return
  for (const key of [...of.keys()])
    if (page === undefined ? key.startsWith(`${pasid}/`) : key === `${pasid}/${page}`)
      of.delete(key)
}

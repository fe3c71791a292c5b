// The guest exception library from the host's side: the table of handlers in guest memory, and the check after each run.
// Names are those of the kernel's selftests. Handlers are functions of the guest, by name or address, per VM.

import { hex } from '../../base/addr.js'
import type { GuestVcpu, GuestVm } from './guest-vm.js'
import { UCALL, UnhandledExceptionError } from './ucall.js'

/** Vectors of x86-64 that programs meet. */
// biome-ignore format: table
export const
  DE_VECTOR = 0, DB_VECTOR = 1, BP_VECTOR = 3, UD_VECTOR = 6, GP_VECTOR = 13, PF_VECTOR = 14

/** Vectors of AArch64: four groups of synchronous, IRQ, FIQ and SError. */
// biome-ignore format: table
export const
  VECTOR_SYNC_CURRENT_SP0 = 0,  VECTOR_IRQ_CURRENT_SP0 = 1,  VECTOR_FIQ_CURRENT_SP0 = 2,  VECTOR_ERROR_CURRENT_SP0 = 3,
  VECTOR_SYNC_CURRENT = 4,      VECTOR_IRQ_CURRENT = 5,      VECTOR_FIQ_CURRENT = 6,      VECTOR_ERROR_CURRENT = 7,
  VECTOR_SYNC_LOWER_64 = 8,     VECTOR_IRQ_LOWER_64 = 9,     VECTOR_FIQ_LOWER_64 = 10,    VECTOR_ERROR_LOWER_64 = 11,
  VECTOR_SYNC_LOWER_32 = 12,    VECTOR_IRQ_LOWER_32 = 13,    VECTOR_FIQ_LOWER_32 = 14,    VECTOR_ERROR_LOWER_32 = 15

/** Exception classes of AArch64, ESR bits 31:26; all of them are the mask. */
// biome-ignore format: table
export const
  ESR_EC_UNKNOWN = 0x00, ESR_EC_SVC64 = 0x15, ESR_EC_SYS64 = 0x18, ESR_EC_IABT = 0x21, ESR_EC_DABT = 0x25,
  ESR_EC_HW_BP_CURRENT = 0x31, ESR_EC_SSTEP_CURRENT = 0x33, ESR_EC_WP_CURRENT = 0x35, ESR_EC_BRK_INS = 0x3c,
  ESR_EC_MASK = 0x3f

/** A function of the guest: its name, or its address. */
export type GuestFunction = string | bigint

/** Guest global that holds the address of the table of handlers. */
const TABLE = 'exception_handlers'

/** Makes an empty table of handlers in guest memory. Without one every exception is unhandled. */
export function vm_init_descriptor_tables(vm: GuestVm): void {
  const { vectors, classes } = vm.architecture
  vm.write64(vm.symbol(TABLE), vm.alloc(vectors * classes * 8))
  vm.architecture.prepareVectors?.(vm)
}

/** Points a vCPU's exceptions at the library; without it they go wherever its reset state says. */
export function vcpu_init_descriptor_tables(vcpu: GuestVcpu): void {
  vcpu.vm.architecture.enterVectors(vcpu)
}

/** Handles a class of a synchronous vector. */
export function vm_install_sync_handler(
  vm: GuestVm,
  vector: number,
  ec: number,
  handler: GuestFunction,
): void {
  const { vectors, classes } = vm.architecture
  check(
    vector < vectors && vm.architecture.isSynchronous(vector),
    `vector ${vector} is not a synchronous one`,
  )
  check(ec >= 0 && ec < classes, `ec ${hex(ec)} is not one of ${classes}`)
  install(vm, vector, ec, handler)
}

/**
 * Handles a vector that is not synchronous. With four arguments it is `vm_install_sync_handler`, as the series first
 * called that.
 */
export function vm_install_exception_handler(
  vm: GuestVm,
  vector: number,
  handler: GuestFunction,
): void
export function vm_install_exception_handler(
  vm: GuestVm,
  vector: number,
  ec: number,
  handler: GuestFunction,
): void
export function vm_install_exception_handler(
  vm: GuestVm,
  vector: number,
  ec: number | GuestFunction,
  handler?: GuestFunction,
): void {
  if (typeof ec === 'number') {
    vm_install_sync_handler(vm, vector, ec, handler!)
    return
  }
  const { vectors } = vm.architecture
  check(
    vector < vectors && !vm.architecture.isSynchronous(vector),
    `vector ${vector} is a synchronous one`,
  )
  install(vm, vector, 0, ec)
}

/** The older name of `vm_install_exception_handler` for vectors that are not synchronous. */
export function vm_install_vector_handler(
  vm: GuestVm,
  vector: number,
  handler: GuestFunction,
): void {
  vm_install_exception_handler(vm, vector, handler)
}

/** Throws UnhandledExceptionError if the guest's last report is of an exception that nobody handled. */
export function assert_on_unhandled_exception(vcpu: GuestVcpu): void {
  const report = vcpu.ucall()
  if (report?.cmd !== UCALL.UNHANDLED) return
  const [vector, ec, valid] = report.args
  throw new UnhandledExceptionError(Number(vector), valid === 1n ? Number(ec) : undefined)
}

function install(vm: GuestVm, vector: number, ec: number, handler: GuestFunction): void {
  const table = vm.read64(vm.symbol(TABLE))
  check(table !== 0n, 'vm_init_descriptor_tables comes first')
  const at = typeof handler === 'string' ? vm.symbol(handler) : handler
  vm.write64(table + BigInt(8 * (vector * vm.architecture.classes + ec)), at)
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what)
}

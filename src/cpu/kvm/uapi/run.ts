// uapi linux/kvm.h: `struct kvm_run`, the page a vCPU shares with its owner. Two members are an architecture's own:
// what a debug exit tells, and the register classes of `s`. The anonymous union is called `u` here: `run.u.io.port`.

import { type AnyStruct, type StructValue, struct, union } from '../../../base/struct.js'

/** Declares the page: `debugArch` is `struct kvm_debug_exit_arch`, `syncRegs` `struct kvm_sync_regs`. */
export const kvmRun = <const D extends AnyStruct, const S extends AnyStruct>(
  debugArch: D,
  syncRegs: S,
) =>
  struct('struct kvm_run', {
    request_interrupt_window: 'u8', // in
    immediate_exit: 'u8', // in
    padding1: ['u8', 6],
    exit_reason: 'u32', // out, from here
    ready_for_interrupt_injection: 'u8',
    if_flag: 'u8',
    flags: 'u16',
    cr8: 'u64', // in and out
    apic_base: 'u64',
    u: union('exit of struct kvm_run', {
      hw: struct('hw of struct kvm_run', { hardware_exit_reason: 'u64' }),
      fail_entry: struct('fail_entry of struct kvm_run', {
        hardware_entry_failure_reason: 'u64',
        cpu: 'u32',
      }),
      ex: struct('ex of struct kvm_run', { exception: 'u32', error_code: 'u32' }),
      io: struct('io of struct kvm_run', {
        direction: 'u8',
        size: 'u8', // bytes: 1, 2 or 4
        port: 'u16',
        count: 'u32',
        data_offset: 'u64', // from the start of kvm_run
      }),
      debug: struct('debug of struct kvm_run', { arch: debugArch }),
      mmio: struct('mmio of struct kvm_run', {
        phys_addr: 'u64',
        data: ['u8', 8],
        len: 'u32',
        is_write: 'u8',
      }),
      hypercall: struct('hypercall of struct kvm_run', {
        nr: 'u64',
        args: ['u64', 6],
        ret: 'u64', // in
        longmode: 'u32',
        pad: 'u32',
      }),
      internal: struct('internal of struct kvm_run', {
        suberror: 'u32',
        ndata: 'u32',
        data: ['u64', 16],
      }),
      memory_fault: struct('memory_fault of struct kvm_run', {
        flags: 'u64', // KVM_MEMORY_EXIT_FLAG_PRIVATE: the access was private
        gpa: 'u64',
        size: 'u64',
      }),
      system_event: struct('system_event of struct kvm_run', {
        type: 'u32',
        ndata: 'u32',
        data: ['u64', 16],
      }),
      padding: ['u8', 256],
    }),
    kvm_valid_regs: 'u64',
    kvm_dirty_regs: 'u64',
    s: union('s of struct kvm_run', { regs: syncRegs, padding: ['u8', 2048] }),
  })

type Run = StructValue<ReturnType<typeof kvmRun>['members']>
/** The page as code that serves every architecture sees it. */
export type CommonRun = Omit<Run, 's' | 'u'> & { readonly u: Omit<Run['u'], 'debug'> }

// The VM ioctl of the 2016 proposal for encrypted guests, KVM_SEV_ISSUE_CMD (rules C-13 to C-16), which was never
// merged: no header has it, and some of its names came to mean other structures. Ours end in `_2016`.

import { struct } from '../../../base/struct.js'
import { _IOWR } from '../../../sys/ioctl.js'

const KVMIO = 0xae

export const kvm_sev_issue_cmd_2016 = struct('struct kvm_sev_issue_cmd', {
  cmd: 'u32',
  opaque: 'u64', // pointer to the command's own structure
  ret_code: 'u32', // out: the firmware's code
})
export const KVM_SEV_ISSUE_CMD = _IOWR(KVMIO, 0xb8, kvm_sev_issue_cmd_2016.size)

/** Commands of KVM_SEV_ISSUE_CMD. */
// biome-ignore format: table
export const SEV_2016 = {
  LAUNCH_START:   0, LAUNCH_UPDATE:  1, LAUNCH_FINISH:  2,
  GUEST_STATUS:   3, DBG_DECRYPT:    4, DBG_ENCRYPT:    5,
  RECEIVE_START:  6, RECEIVE_UPDATE: 7, RECEIVE_FINISH: 8,
  SEND_START:     9, SEND_UPDATE:   10, SEND_FINISH:   11,
  API_VERSION:   12,
} as const

/** Bit of `flags` in LAUNCH_START: share the key of the guest that `handle` names. */
export const SEV_2016_FLAG_KS = 1 << 0

export const kvm_sev_launch_start_2016 = struct('struct kvm_sev_launch_start', {
  handle: 'u32', // in: a guest to share the key of; out: the new guest
  flags: 'u32',
  policy: 'u32',
  nonce: ['u8', 16],
  dh_pub_qx: ['u8', 32],
  dh_pub_qy: ['u8', 32],
})
export const kvm_sev_launch_update_2016 = struct('struct kvm_sev_launch_update', {
  address: 'u64',
  length: 'u32',
})
export const kvm_sev_launch_finish_2016 = struct('struct kvm_sev_launch_finish', {
  vcpu_count: 'u32',
  vcpu_length: 'u32', // bytes of one vCPU's state
  vcpu_mask_addr: 'u64',
  vcpu_mask_length: 'u32',
  measurement: ['u8', 32], // out
})
export const kvm_sev_guest_status_2016 = struct('struct kvm_sev_guest_status', {
  policy: 'u32',
  state: 'u32',
})
export const kvm_sev_dbg_2016 = struct('struct kvm_sev_dbg_decrypt', {
  src_addr: 'u64',
  dst_addr: 'u64',
  length: 'u32',
})

// uapi asm/kvm.h and linux/psp-sev.h: encrypted guests of AMD processors, in header order. KVM_MEMORY_ENCRYPT_OP and
// its commands (rules C-18, C-19), regions that may be encrypted, and VM types. The interface of the 2016 proposal is
// in sev-2016.ts.

import { struct } from '../../../base/struct.js'
import { _IOR, _IOWR } from '../../../sys/ioctl.js'

const KVMIO = 0xae

// ---- VM types ----
export const KVM_X86_SEV_VM = 2
export const KVM_X86_SEV_ES_VM = 3
export const KVM_X86_SNP_VM = 4

// ---- ioctl numbers ----
export const KVM_MEMORY_ENCRYPT_OP = _IOWR(KVMIO, 0xba, 8)
export const kvm_enc_region = struct('struct kvm_enc_region', {
  addr: 'u64', // process address
  size: 'u64', // bytes
})
export const KVM_MEMORY_ENCRYPT_REG_REGION = _IOR(KVMIO, 0xbb, kvm_enc_region.size)
export const KVM_MEMORY_ENCRYPT_UNREG_REGION = _IOR(KVMIO, 0xbc, kvm_enc_region.size)

// ---- commands of KVM_MEMORY_ENCRYPT_OP ----
export const KVM_SEV_INIT = 0
export const KVM_SEV_ES_INIT = 1
export const KVM_SEV_LAUNCH_START = 2
export const KVM_SEV_LAUNCH_UPDATE_DATA = 3
export const KVM_SEV_LAUNCH_UPDATE_VMSA = 4
export const KVM_SEV_LAUNCH_SECRET = 5
export const KVM_SEV_LAUNCH_MEASURE = 6
export const KVM_SEV_LAUNCH_FINISH = 7
export const KVM_SEV_SEND_START = 8
export const KVM_SEV_SEND_UPDATE_DATA = 9
export const KVM_SEV_SEND_UPDATE_VMSA = 10
export const KVM_SEV_SEND_FINISH = 11
export const KVM_SEV_RECEIVE_START = 12
export const KVM_SEV_RECEIVE_UPDATE_DATA = 13
export const KVM_SEV_RECEIVE_UPDATE_VMSA = 14
export const KVM_SEV_RECEIVE_FINISH = 15
export const KVM_SEV_GUEST_STATUS = 16
export const KVM_SEV_DBG_DECRYPT = 17
export const KVM_SEV_DBG_ENCRYPT = 18
export const KVM_SEV_CERT_EXPORT = 19
export const KVM_SEV_GET_ATTESTATION_REPORT = 20
export const KVM_SEV_SEND_CANCEL = 21
export const KVM_SEV_INIT2 = 22
export const KVM_SEV_SNP_LAUNCH_START = 100
export const KVM_SEV_SNP_LAUNCH_UPDATE = 101
export const KVM_SEV_SNP_LAUNCH_FINISH = 102

export const kvm_sev_cmd = struct('struct kvm_sev_cmd', {
  id: 'u32',
  pad0: 'u32',
  data: 'u64', // pointer to the command's own structure
  error: 'u32', // out: the firmware's code
  sev_fd: 'u32', // descriptor of /dev/sev
})
export const kvm_sev_init = struct('struct kvm_sev_init', {
  vmsa_features: 'u64',
  flags: 'u32',
  ghcb_version: 'u16',
  pad1: 'u16',
  pad2: ['u32', 8],
})
export const kvm_sev_launch_start = struct('struct kvm_sev_launch_start', {
  handle: 'u32', // in: a guest to share the key of, or 0; out: the new guest
  policy: 'u32',
  dh_uaddr: 'u64', // the owner's public key
  dh_len: 'u32',
  pad0: 'u32',
  session_uaddr: 'u64',
  session_len: 'u32',
  pad1: 'u32',
})
export const kvm_sev_launch_update_data = struct('struct kvm_sev_launch_update_data', {
  uaddr: 'u64',
  len: 'u32',
  pad0: 'u32',
})
export const kvm_sev_launch_secret = struct('struct kvm_sev_launch_secret', {
  hdr_uaddr: 'u64',
  hdr_len: 'u32',
  pad0: 'u32',
  guest_uaddr: 'u64',
  guest_len: 'u32',
  pad1: 'u32',
  trans_uaddr: 'u64',
  trans_len: 'u32',
  pad2: 'u32',
})
export const kvm_sev_launch_measure = struct('struct kvm_sev_launch_measure', {
  uaddr: 'u64',
  len: 'u32', // 0 asks for it
  pad0: 'u32',
})
export const kvm_sev_guest_status = struct('struct kvm_sev_guest_status', {
  handle: 'u32',
  policy: 'u32',
  state: 'u32',
})
export const kvm_sev_dbg = struct('struct kvm_sev_dbg', {
  src_uaddr: 'u64',
  dst_uaddr: 'u64',
  len: 'u32',
  pad0: 'u32',
})
export const kvm_sev_attestation_report = struct('struct kvm_sev_attestation_report', {
  mnonce: ['u8', 16],
  uaddr: 'u64',
  len: 'u32',
  pad0: 'u32',
})
export const kvm_sev_send_start = struct('struct kvm_sev_send_start', {
  policy: 'u32', // out
  pad0: 'u32',
  pdh_cert_uaddr: 'u64', // public key of the platform it goes to
  pdh_cert_len: 'u32',
  pad1: 'u32',
  plat_certs_uaddr: 'u64',
  plat_certs_len: 'u32',
  pad2: 'u32',
  amd_certs_uaddr: 'u64',
  amd_certs_len: 'u32',
  pad3: 'u32',
  session_uaddr: 'u64', // out
  session_len: 'u32',
  pad4: 'u32',
})
export const kvm_sev_send_update_data = struct('struct kvm_sev_send_update_data', {
  hdr_uaddr: 'u64',
  hdr_len: 'u32',
  pad0: 'u32',
  guest_uaddr: 'u64',
  guest_len: 'u32',
  pad1: 'u32',
  trans_uaddr: 'u64',
  trans_len: 'u32',
  pad2: 'u32',
})
export const kvm_sev_receive_start = struct('struct kvm_sev_receive_start', {
  handle: 'u32',
  policy: 'u32',
  pdh_uaddr: 'u64',
  pdh_len: 'u32',
  pad0: 'u32',
  session_uaddr: 'u64',
  session_len: 'u32',
  pad1: 'u32',
})
export const kvm_sev_receive_update_data = struct('struct kvm_sev_receive_update_data', {
  hdr_uaddr: 'u64',
  hdr_len: 'u32',
  pad0: 'u32',
  guest_uaddr: 'u64',
  guest_len: 'u32',
  pad1: 'u32',
  trans_uaddr: 'u64',
  trans_len: 'u32',
  pad2: 'u32',
})

import { createMachine } from 'vfio-emu'
import * as kvm from 'vfio-emu/uapi'

// 1. A host with SEV, and a VM of its type. A command is a structure that points at the command's own.
const { sys } = createMachine({ sev: { asids: 4, seed: 'any text: every key comes from it' } })
const fd = sys.open('/dev/sev')
const vm = sys.ioctl(sys.open('/dev/kvm'), kvm.KVM_CREATE_VM, kvm.KVM_X86_SEV_VM)
const scratch = sys.mmap(4096)

function command(id: number, data?: { readonly bytes: Uint8Array }): void {
  if (data) scratch.bytes.set(data.bytes)
  const pointer = data ? scratch.vaddr : 0n
  sys.ioctl(vm, kvm.KVM_MEMORY_ENCRYPT_OP, kvm.kvm_sev_cmd({ id, data: pointer, sev_fd: fd }))
  data?.bytes.set(scratch.bytes.subarray(0, data.bytes.length))
}
const state = () => {
  const status = kvm.kvm_sev_guest_status()
  command(kvm.KVM_SEV_GUEST_STATUS, status)
  return `state ${status.state}, policy ${status.policy}`
}

// 2. Launch: what lies in memory is measured, and encrypted where it lies.
const image = sys.mmap(4096)
image.bytes.set(new TextEncoder().encode('sixteen bytes...'))
command(kvm.KVM_SEV_INIT2, kvm.kvm_sev_init())
command(kvm.KVM_SEV_LAUNCH_START, kvm.kvm_sev_launch_start({ policy: 0 }))
console.log(state())
command(
  kvm.KVM_SEV_LAUNCH_UPDATE_DATA,
  kvm.kvm_sev_launch_update_data({ uaddr: image.vaddr, len: 4096 }),
)
console.log(`in memory: ${hex(image.bytes)}`)

// 3. Measure: 32 bytes that the guest's owner can compute too, and 16 that no other launch has.
const measured = sys.mmap(4096)
command(kvm.KVM_SEV_LAUNCH_MEASURE, kvm.kvm_sev_launch_measure({ uaddr: measured.vaddr, len: 48 }))
console.log(`measured:  ${hex(measured.bytes)}`)
command(kvm.KVM_SEV_LAUNCH_FINISH)
console.log(state())

// 4. This policy lets the host debug: from any address, any number of bytes.
const plain = sys.mmap(4096)
const dbg = { src_uaddr: image.vaddr + 8n, dst_uaddr: plain.vaddr, len: 5 }
command(kvm.KVM_SEV_DBG_DECRYPT, kvm.kvm_sev_dbg(dbg))
console.log(`decrypted: ${new TextDecoder().decode(plain.bytes.subarray(0, 5))}`)

function hex(bytes: Uint8Array): string {
  return Array.from(bytes.subarray(0, 16), b => b.toString(16).padStart(2, '0')).join(' ')
}

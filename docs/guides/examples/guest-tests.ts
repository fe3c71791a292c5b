import { readFileSync } from 'node:fs'
import {
  ARM64_GUEST,
  ESR_EC_BRK_INS,
  GuestVm,
  VECTOR_SYNC_CURRENT,
  vcpu_init_descriptor_tables,
  vm_init_descriptor_tables,
  vm_install_sync_handler,
} from 'vfio-emu/testing'

// 1. A VM with a program of the guest library. Exceptions find their handlers in a table of its memory.
const program = new URL('../../../guests/built/tests/exceptions-arm64.elf', import.meta.url)
const vm = new GuestVm(ARM64_GUEST, readFileSync(program))
vm_init_descriptor_tables(vm)
vm_install_sync_handler(vm, VECTOR_SYNC_CURRENT, ESR_EC_BRK_INS, 'change')

// 2. A vCPU calls a function of it. What the handler changes in its frame, the guest goes on with.
const vcpu = vm.vcpu('frame_contents')
vcpu_init_descriptor_tables(vcpu)
console.log(`frame_contents: ${vcpu.run().kind}, ${vm.read64(vm.symbol('handled'))} handled`)

// 3. What goes wrong in the guest is an error here.
const failure = (entry: string): string => {
  vcpu.call(entry)
  vcpu_init_descriptor_tables(vcpu)
  try {
    return vcpu.run().kind
  } catch (error) {
    return (error as Error).message
  }
}
console.log(failure('failing_assertion'))
console.log(failure('undefined_instruction'))
console.log(failure('from_sp0'))

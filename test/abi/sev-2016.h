/* The structures of the 2016 SEV proposal as field lists of our own, for the C compiler to lay out. */
#include <linux/types.h>
#include <linux/ioctl.h>
#include <linux/version.h>

struct kvm_sev_issue_cmd { __u32 cmd; __u64 opaque; __u32 ret_code; };
struct kvm_sev_launch_start {
  __u32 handle, flags, policy;
  __u8 nonce[16], dh_pub_qx[32], dh_pub_qy[32];
};
struct kvm_sev_launch_update { __u64 address; __u32 length; };
struct kvm_sev_launch_finish {
  __u32 vcpu_count, vcpu_length;
  __u64 vcpu_mask_addr;
  __u32 vcpu_mask_length;
  __u8 measurement[32];
};
struct kvm_sev_guest_status { __u32 policy, state; };
struct kvm_sev_dbg_decrypt { __u64 src_addr, dst_addr; __u32 length; };

#define KVM_SEV_ISSUE_CMD _IOWR(0xae, 0xb8, struct kvm_sev_issue_cmd)

"""Conversions of f16 for processors that have no instructions for it: the functions that LLVM calls there.

Their names and types are those of compiler-rt and libgcc, which need not be loaded. All round to the nearest, ties to
even, and keep signs, infinities and NaN (IEEE 754-2019).
"""

from __future__ import annotations

NAMES = ("__extendhfsf2", "__truncsfhf2", "__truncdfhf2")

# A number times 2**112 has its exponent counted as in f32, also where it is subnormal. Below 2**-14 the steps of f16
# are those of f32 at 0.5, so adding 0.5 rounds. A double is rounded once if an inexact float between is made odd.
TEXT = """
define float @__extendhfsf2(half %h) {
  %narrow = bitcast half %h to i16
  %bits = zext i16 %narrow to i32
  %sign = and i32 %bits, 32768
  %high = shl i32 %sign, 16
  %rest = and i32 %bits, 32767
  %moved = shl i32 %rest, 13
  %small = bitcast i32 %moved to float
  %finite = fmul float %small, 0x46F0000000000000
  %number = bitcast float %finite to i32
  %is_nan = icmp ugt i32 %rest, 31744
  %quiet = select i1 %is_nan, i32 2143289344, i32 2139095040
  %special = or i32 %moved, %quiet
  %is_special = icmp uge i32 %rest, 31744
  %magnitude = select i1 %is_special, i32 %special, i32 %number
  %all = or i32 %magnitude, %high
  %result = bitcast i32 %all to float
  ret float %result
}

define half @__truncsfhf2(float %f) {
  %bits = bitcast float %f to i32
  %sign = lshr i32 %bits, 16
  %high = and i32 %sign, 32768
  %rest = and i32 %bits, 2147483647
  %moved = lshr i32 %rest, 13
  %last = and i32 %moved, 1
  %up = add i32 %rest, 4095
  %even = add i32 %up, %last
  %lower = sub i32 %even, 939524096
  %normal = lshr i32 %lower, 13
  %magnitude = bitcast i32 %rest to float
  %sum = fadd float %magnitude, 5.000000e-01
  %added = bitcast float %sum to i32
  %subnormal = sub i32 %added, 1056964608
  %is_small = icmp ult i32 %rest, 947912704
  %number = select i1 %is_small, i32 %subnormal, i32 %normal
  %is_large = icmp uge i32 %rest, 1199566848
  %finite = select i1 %is_large, i32 31744, i32 %number
  %part = and i32 %moved, 1023
  %nan = or i32 %part, 32256
  %is_nan = icmp ugt i32 %rest, 2139095040
  %found = select i1 %is_nan, i32 %nan, i32 %finite
  %all = or i32 %found, %high
  %narrow = trunc i32 %all to i16
  %result = bitcast i16 %narrow to half
  ret half %result
}

define half @__truncdfhf2(double %d) {
  %near = fptrunc double %d to float
  %back = fpext float %near to double
  %is_inexact = fcmp one double %back, %d
  %size = call double @llvm.fabs.f64(double %d)
  %made = call double @llvm.fabs.f64(double %back)
  %is_over = fcmp ogt double %made, %size
  %bits = bitcast float %near to i32
  %below = sub i32 %bits, 1
  %down = select i1 %is_over, i32 %below, i32 %bits
  %odd = or i32 %down, 1
  %chosen = select i1 %is_inexact, i32 %odd, i32 %bits
  %once = bitcast i32 %chosen to float
  %result = call half @__truncsfhf2(float %once)
  ret half %result
}

declare double @llvm.fabs.f64(double)
"""

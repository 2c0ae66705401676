# Builds for 64-bit ARM on another machine, with Debian's cross compiler, and runs what was built
# under QEMU's user-mode emulation. scripts/arm-sysroot makes the folder with the target's
# libraries.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(HEED_SYSROOT "${CMAKE_CURRENT_LIST_DIR}/../../build/arm-sysroot" CACHE PATH
    "Root of the target's libraries")
get_filename_component(CMAKE_SYSROOT "${HEED_SYSROOT}" ABSOLUTE)
if(NOT EXISTS "${CMAKE_SYSROOT}/usr/include")
  message(FATAL_ERROR "there are no libraries for ARM in ${CMAKE_SYSROOT}: run scripts/arm-sysroot")
endif()
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES HEED_SYSROOT)

set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR}
    "${CMAKE_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${CMAKE_SYSROOT}/usr/share/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${CMAKE_SYSROOT}")

find_program(HEED_QEMU NAMES qemu-aarch64 qemu-aarch64-static)
mark_as_advanced(HEED_QEMU)
if(HEED_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${HEED_QEMU};-L;${CMAKE_SYSROOT}")
endif()

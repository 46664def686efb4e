# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0

# Two cures for building against ROS wheels in a venv; setup.py gives this file to CMake as
# CMAKE_PROJECT_INCLUDE, and the wheels stay as they are.
#
# Some wheels' exported targets name an include directory of the machine that they were built on,
# and CMake refuses to generate for a directory that does not exist: those are dropped.
#
# rosidl exports our Python type support with numpy's include directory, and CMake refuses to
# export one that lies in the source directory, as .venv does: those are kept for the build only.
function(_build_in_venv)
  get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
  get_property(own DIRECTORY PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS imported own)
    get_target_property(include_dirs ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT include_dirs)
      continue()
    endif()
    set(usable "")
    foreach(include_dir IN LISTS include_dirs)
      if(NOT IS_ABSOLUTE "${include_dir}")
        list(APPEND usable "${include_dir}")
      elseif(target IN_LIST own)
        list(APPEND usable "$<BUILD_INTERFACE:${include_dir}>")
      elseif(EXISTS "${include_dir}")
        list(APPEND usable "${include_dir}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${usable}")
  endforeach()
endfunction()

cmake_language(DEFER CALL _build_in_venv)

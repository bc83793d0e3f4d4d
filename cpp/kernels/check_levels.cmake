# Fails the build when two instruction-set levels share a weak or exported symbol: the linker would keep
# one of the two, and an old processor would run code of a new one.
#   cmake -DNM=nm -DOBJECTS=a.o,b.o -P check_levels.cmake
cmake_minimum_required(VERSION 3.20)
string(REPLACE "," ";" objects "${OBJECTS}")
set(seen "")
foreach(object IN LISTS objects)
  execute_process(COMMAND "${NM}" --defined-only "${object}" OUTPUT_VARIABLE table
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[ \t][TWVu] [^\n]+" symbols "${table}")
  list(REMOVE_DUPLICATES symbols)
  foreach(symbol IN LISTS symbols)
    # a reference to the language's own exception personality is harmless
    if(symbol MATCHES "DW\\.ref\\.")
      continue()
    endif()
    if(symbol IN_LIST seen)
      message(FATAL_ERROR "kernels: the symbol '${symbol}' is defined by two instruction-set levels; "
                          "give it internal linkage (an anonymous namespace).")
    endif()
  endforeach()
  list(APPEND seen ${symbols})
endforeach()
list(LENGTH seen count)
message(STATUS "kernels: ${count} symbols, none shared between instruction-set levels")

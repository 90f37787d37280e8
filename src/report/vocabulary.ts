/**
 * Words of PostgreSQL's error messages (its own sources, and the names of conditions in errcodes.txt) and of the gate's,
 * in which no constant of anybody's is. Where constants are hidden, no other word of a message is shown.
 */
export const vocabulary = new Set(
  `a access active after aggregate all allowed already alter ambiguous an and another any are argument arguments array
  as at atomic attempted attribute available base be because been before begin behind being bigint bit block blocks
  boolean both bound but by bytea call called canceling cannot cardinality cast char character characters check class
  collation column columns command commands commit committed composite conflict conflicting connection constraint
  constraints contain contains context conversion convert copy could create current cursor cycle cyclic data database
  date datetime db deadlock default deferred definition delete depend dependent depends destination detected did different
  dimensions distinct division do does domain double down drop due duplicate dynamic each element else encoding end
  ended enum error escape exceeded exclusion exclude execute exist exists expected expression extension failed failure
  feature field fields first float for foreign found from function functions generated get given grant group has hash
  have id identifier identity if ignored immutable implicit implicitly in inactive incompatible incorrect index indexes
  infinite inherit inherited initially inner input insert inside instead insufficient int integer internal interval into
  invalid is isolation it its json jsonb key label language large last length less level limit literal lock locks long
  lower many match matching maximum memory merge method minimum missing mode modified module more multiple must name
  named names near negative new newer no non not null number numeric object objects of off old on one only open operator
  option or order other out outer outside over overflow owned owner parameter parameters parent part partition
  partitioned password permission pg prepared permitted position precision primary privilege privileges procedure
  process query range read real recursion recursive reference referenced references relation release replica
  required requires reserved return returned returns right role rollback routine row rows rule run running same savepoint
  scale schema schemas second select sequence serialization serialize server session set several shared size smallint
  snapshot source specified sql start state statement statements still storage string structure subquery subtransaction
  such syntax system table tables tablespace target temporary terminating text than that the there these they this time
  timeout timestamp timestamptz to too total transaction transactions trigger truncate type types unable undefined
  under unexpected unique unknown unlogged unrecognized unsafe unsupported unterminated until update upgrade use used
  user using uuid value values varchar varying version view violates violation wait was were when where which while
  window with within without would write writing written xml yet zero zone
  administrator atomic upgrade built-in client connected connections execution expired finish frame halfway idle lifetime
  nested newest older parts past portal prepare retry script single subscription together undone unit`
    .split(/\s+/)
    .filter(Boolean),
)

;;; regions.scm --- what a policy may ask about regions and clients.
;;;
;;; Accessors come from the host; `all-regions` is the regions of the tree in
;;; force, so that a policy written with it needs no edit when one is added.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide all-regions region-id region-country region-jurisdiction region-law
         region-state region-primary? region-has-feature? region-has-features? region-max-instances
         client-country client-continent client-law region-distance
         region-continent same-continent? region-ids)

;; By the continent codes that `client-continent` uses: every country that stands in
;; the runtime's table of cloud regions (runtime/config/data), and some neighbours.
(define continents
  '(("EU" "AT" "BE" "CH" "DE" "DK" "ES" "FI" "FR" "GB" "GR" "IE" "IT" "NL" "NO" "PL" "SE")
    ("NA" "CA" "MX" "US")
    ("SA" "BR" "CL")
    ("AS" "AE" "BH" "CN" "HK" "ID" "IL" "IN" "JP" "KR" "MY" "QA" "SA" "SG" "TH" "TW")
    ("OC" "AU" "NZ")
    ("AF" "ZA")))

;; The same by country: it is asked for every region of every client class.
(define continent-of
  (foldl (lambda (row known)
           (foldl (lambda (country known) (hash-insert known country (car row))) known (cdr row)))
         (hash)
         continents))

;;@doc
;; "EU", "NA" and so on, by the country where the region stands; #f where it is not listed.
(define (region-continent region)
  (define country (region-country region))
  (and (hash-contains? continent-of country) (hash-ref continent-of country)))

;;@doc
;; #t when client and region are known to be on one continent.
(define (same-continent? region client)
  (define continent (client-continent client))
  (and continent (equal? continent (region-continent region))))

;;@doc
;; The ids of the regions, in their order.
(define (region-ids regions)
  (map region-id regions))
